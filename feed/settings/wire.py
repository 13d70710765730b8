"""What we add to Hypercorn."""

from pydantic_settings import BaseSettings

from feed.settings.units import Bytes, Count, Seconds


class WireOptions(BaseSettings):
    """What we add to Hypercorn."""

    wire: bool = True
    """Off: streams go through sse-starlette and plain Hypercorn, as under any other server."""
    backlog: Count = 1024
    """Connections that may wait to be accepted."""
    write_buffer: Bytes = 32 * 1024
    """Unsent bytes of a connection in this process over which nothing more is pushed to it."""
    send_buffer: Bytes = 64 * 1024
    """SO_SNDBUF of each connection; the kernel doubles it."""
    peer_timeout: Seconds = 20.0
    """A peer that acknowledges nothing for so long is gone (TCP_USER_TIMEOUT); silent ones are probed as often. One that
    answers and takes nothing has `send_timeout`."""
    close_timeout: Seconds = 2.0
    """A connection that we close has so long to take what is left."""
    h2_streams: Count = 256
    """Streams a client may have open on one HTTP/2 connection."""
    h2_resets: Count = 1_000
    """Streams of one HTTP/2 connection that its client may reset in a row; then `h2_reset_rate` a second."""
    h2_reset_rate: Count = 20
