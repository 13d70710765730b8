"""How much anybody may do."""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from pydantic_settings import BaseSettings, NoDecode

from feed.settings.units import Bytes, Count, Seconds


class LimitOptions(BaseSettings):
    """How much anybody may do."""

    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    """Networks of the proxies whose word on the client's address and scheme is taken, comma-separated."""
    forwarded_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    """The header in which they say it (`x-forwarded-for` comes with `x-forwarded-proto`); the other is not believed."""
    proxy_protocol: bool = False
    """Connections from `trusted_proxies` begin with a PROXY header (version 1 or 2); plain connections only, no TLS."""
    limits_exempt: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = (
        IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"),
    )  # fmt: skip
    """Networks to which no limit by address applies."""
    streams_per_address: Count = 100
    """Open streams of one address, a process; more are told to come back later."""
    stream_rate: str = "60/minute"
    """New streams of one address, as `limits` writes it; more are told to come back later."""
    refusals: Count = 60
    """Requests of one address, and of one connection, in a row that are told why they are refused (401, 403, 429, goodbye);
    the next ones are reset."""
    refusal_rate: Count = 5
    """The same a second, from then on."""
    connections_per_address: Count = 200
    """Open connections of one address, a process; more are closed at once."""
    connection_rate: str = "50/second"
    """New connections of one address; more are closed at once."""
    handshake_timeout: Seconds = 10.0
    """A TLS handshake."""
    write_rate: str = "600/minute"
    """Writes (requests) of one key, or of one address where writing is open."""
    read_rate: str = "1200/minute"
    """Lists and reads of one address or key."""
    denied_rate: str = "30/minute"
    """Bad credentials of one address; more are answered with 429, and keys not seen before with them."""
    header_bytes: Bytes = 16 * 1024
    """The head of one request."""
    h2_control_rate: Count = 200
    """Frames of one HTTP/2 connection a second that ask for an answer and carry nothing (PING, SETTINGS, empty DATA)."""
    max_age: Seconds | None = None
    """A stream ends after so long, give or take a tenth, and comes back: to spread clients over new processes."""
