"""A grant: what the holder of a credential may do, on which part of the feed, and until when."""

from dataclasses import dataclass
from enum import StrEnum

from feed.model.filter import EVERYTHING, Filter


class Scope(StrEnum):
    """What a credential allows. Write includes read, and admin includes everything."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    METRICS = "metrics"


_IMPLIED = {
    Scope.READ: frozenset({Scope.READ}),
    Scope.WRITE: frozenset({Scope.READ, Scope.WRITE}),
    Scope.ADMIN: frozenset(Scope),
    Scope.METRICS: frozenset({Scope.METRICS}),
}


@dataclass(frozen=True, slots=True)
class Grant:
    """What a credential allows, and whose it is."""

    name: str
    """The name of the holder for logs and lists: `key:<id>`, `jwt:<sub>`, or `open`; never the credential itself."""
    scopes: frozenset[Scope]
    filter: Filter = EVERYTHING
    """The part of the feed that the holder sees."""
    filter_text: str = ""
    """The same filter as a query string."""
    issued_at: float | None = None
    """When the credential was issued; Unix time in seconds."""
    expires_at: float | None = None
    """When the grant ends, and open streams with it; Unix time in seconds."""
    max_streams: int | None = None
    session: str | None = None
    """The id of the session, if the credential is a cookie or was made from one."""
    token: str | None = None
    """The `jti` of the token, if the credential is a JWT or was made from one."""

    def allows(self, scope: Scope) -> bool:
        """Whether the grant includes `scope`."""
        return scope in self.scopes


def scopes_of(*scopes: Scope) -> frozenset[Scope]:
    """Return the scopes together with the scopes that they include."""
    return frozenset().union(*(_IMPLIED[scope] for scope in scopes))


OPEN = Grant("open", frozenset(Scope))
"""The grant of everybody on this machine, while the service listens on loopback and asks for no credentials."""

OPEN_READING = Grant("open", frozenset({Scope.READ}))
"""The grant of everybody, while reading is open."""

NOTHING = Grant("nobody", frozenset())
"""The grant of a caller that was not let in."""
