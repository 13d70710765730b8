"""Hypercorn's configuration with what the wire needs: bounds, the connections that are open, and turns for herds."""

from hypercorn.config import Config

from feed.wire.connection import Connections
from feed.wire.turns import Turns


class WireConfig(Config):
    """A Hypercorn `Config` for `feed serve`. Sizes in bytes, times in seconds."""

    write_buffer: int
    send_timeout: float
    close_timeout: float
    h2_resets: int
    h2_reset_rate: int
    connections: Connections
    begin: Turns
