"""A grant: what whoever sent a credential may do, on which part of the feed, and until when."""

from dataclasses import dataclass
from enum import StrEnum

from feed.model.filter import EVERYTHING, Filter


class Scope(StrEnum):
    """What a credential is good for; write and admin let read as well, admin lets everything."""

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
    """What a credential stands for."""

    name: str
    """Who it is, for logs and lists: `key:<id>`, `jwt:<sub>`, or `open`; never the credential."""
    scopes: frozenset[Scope]
    filter: Filter = EVERYTHING
    """The part of the feed that its holder sees."""
    filter_text: str = ""
    """The same as a query string."""
    issued_at: float | None = None
    """Unix time, seconds."""
    expires_at: float | None = None
    """Unix time, seconds; open streams end then."""
    max_streams: int | None = None
    session: str | None = None
    """Of a cookie: the session's id."""
    token: str | None = None
    """Of a JWT: its `jti`."""

    def allows(self, scope: Scope) -> bool:
        """Whether it is good for `scope`."""
        return scope in self.scopes


def scopes_of(*scopes: Scope) -> frozenset[Scope]:
    """The scopes with all that they imply."""
    return frozenset().union(*(_IMPLIED[scope] for scope in scopes))


OPEN = Grant("open", frozenset(Scope))
"""Everybody's, where the service listens on loopback only and asks for no credentials."""

OPEN_READING = Grant("open", frozenset({Scope.READ}))
"""Everybody's, where reading is open."""

NOTHING = Grant("nobody", frozenset())
"""Of one who was not let in."""
