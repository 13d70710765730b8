"""How much a client may do, and how its address is found."""

from ipaddress import IPv4Network, IPv6Network
from typing import Literal

from pydantic import Field

from feed.settings.group import CommaSeparated, Count, Group

Networks = CommaSeparated[IPv4Network | IPv6Network]


class ProxySettings(Group):
    """Proxies in front of the service."""

    trusted: Networks = Field(default=(), validation_alias="FEED_TRUSTED_PROXIES")
    """Networks of the proxies whose word on the client's address and scheme is believed, separated by commas."""
    forwarded_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    """The header that they set (`x-forwarded-for` comes with `x-forwarded-proto`). The other one is not believed."""
    proxy_protocol: bool = False
    """Whether connections from trusted proxies begin with a PROXY header (version 1 or 2). Plain connections only."""


class LimitSettings(Group):
    """How much one client may do. Each limit holds for one process.

    A rate such as `60/minute` or `20/10 seconds` is a token bucket: the whole amount may come at once, and after that one by
    one, as evenly as the rate says (here one a second, or two).
    """

    exempt: Networks = Field(
        default=(IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")), validation_alias="FEED_LIMITS_EXEMPT"
    )
    """Networks to which no limit by address applies, separated by commas."""
    stream_rate: str = "60/minute"
    """New streams of one address. Further ones are told to come back later."""
    refusals: Count = 60
    """Requests of one address, and of one connection, in a row that are told why they are refused (401, 403, 429,
    goodbye). The next ones are reset."""
    refusal_rate: Count = 5
    """The same for each second from then on."""
    connections_per_address: Count = 200
    """Open connections of one address. Further ones are closed at once."""
    connection_rate: str = "50/second"
    """New connections of one address. Further ones are closed at once."""
    write_rate: str = "600/minute"
    """Write requests of one key, or of one address where writing is open."""
    read_rate: str = "1200/minute"
    """Lists and reads of one address or key."""
    denied_rate: str = "30/minute"
    """Bad credentials of one address. Above it they are answered with 429, and so are keys not seen before."""
