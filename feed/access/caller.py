"""A caller: who sent a request, from which address, over which protocol."""

from dataclasses import dataclass

from feed.access.grant import OPEN, Grant


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of one request. Behind trusted proxies, the address and the scheme are those that the proxies report."""

    grant: Grant = OPEN
    address: str = ""
    """The client's address without a port; empty if the server does not know it."""
    protocol: str = "HTTP/1.1"
    secure: bool = False
    """Whether the client came over TLS."""
    bucket: str = ""
    """The key under which limits by address count the caller; empty if they do not apply to it."""

    @property
    def who(self) -> str:
        """The key under which limits by credential count the caller; without a credential, its address (`bucket`)."""
        return self.grant.name if self.grant.name != "open" else self.bucket

    @property
    def family(self) -> str:
        """The protocol under which metrics count the caller's streams: `HTTP/2`, or `HTTP/1.1` for every other one."""
        return "HTTP/2" if self.protocol == "HTTP/2" else "HTTP/1.1"
