"""A caller: who sent a request, from where, and over what."""

from dataclasses import dataclass

from feed.access.grant import OPEN, Grant


@dataclass(frozen=True, slots=True)
class Caller:
    """Of one request: behind proxies that are trusted, what they say of it."""

    grant: Grant = OPEN
    address: str = ""
    """The client's, without a port; empty where the server does not know it."""
    protocol: str = "HTTP/1.1"
    secure: bool = False
    """Whether the client came over TLS."""
    bucket: str = ""
    """What limits by address count it under; empty where none apply."""

    @property
    def who(self) -> str:
        """What limits by key count it under: its credential, else its address; empty where none apply."""
        return self.grant.name if self.grant.name != "open" else self.bucket

    @property
    def family(self) -> str:
        """Its protocol as streams are counted: `HTTP/2`, or `HTTP/1.1` for every other."""
        return "HTTP/2" if self.protocol == "HTTP/2" else "HTTP/1.1"
