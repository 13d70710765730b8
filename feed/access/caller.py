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
    limited: bool = False
    """Whether limits by address apply to it."""
