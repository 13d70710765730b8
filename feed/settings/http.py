"""Where the service listens, what a connection may do, and what a request may be."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from feed.settings.group import Bytes, CommaSeparated, Count, Group, Seconds


class ListenSettings(Group):
    """Where the service listens."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    """Port to listen on; 0 takes a free one."""
    workers: Count = 1
    """Processes that serve. Each has a hub of its own."""
    certfile: Path | None = None
    """TLS certificate (with its chain) in PEM."""
    keyfile: Path | None = None
    """Private key of the certificate in PEM."""
    backlog: Count = 1024
    """Connections that may wait to be accepted."""
    handshake_timeout: Seconds = 10.0
    """Seconds that a TLS handshake, or a PROXY header, may take."""
    send_buffer: Bytes = 64 * 1024
    """SO_SNDBUF of each connection in bytes; the kernel doubles it."""
    peer_timeout: Seconds = 20.0
    """Seconds after which a peer that acknowledges nothing is given up. One that acknowledges has `FEED_SEND_TIMEOUT`."""


class WireSettings(Group):
    """What feed changes in Hypercorn, for each connection."""

    enabled: bool = Field(default=True, validation_alias="FEED_WIRE")
    """Whether streams are written straight to the socket. Turned off, they go through sse-starlette and plain Hypercorn."""
    write_buffer: Bytes = 32 * 1024
    """Unsent bytes of a connection in this process, above which live events are no longer pushed to it."""
    fanout_writer: Literal["auto", "io_uring", "send", "python"] = "auto"
    """How an event is written to all subscribers with the same filter: by one call into C that uses `io_uring` or a loop of
    `send`, or by `python`, one connection after the other. `auto` takes the first that works. TLS always takes `python`."""
    close_timeout: Seconds = 2.0
    """Seconds that a connection has to take what is left when the service closes it."""
    header_bytes: Bytes = 16 * 1024
    """Bytes that the head of one request may have."""
    h2_streams: Count = 256
    """Streams that a client may have open on one HTTP/2 connection."""
    h2_resets: Count = 1_000
    """Streams that a client may reset in a row on one HTTP/2 connection; after that, `FEED_H2_RESET_RATE` a second."""
    h2_reset_rate: Count = 20
    """Streams that a client may reset in a second once it has used up `FEED_H2_RESETS`."""
    h2_control_rate: Count = 200
    """Frames a second on one HTTP/2 connection that ask for an answer and carry no data (PING, SETTINGS, empty DATA)."""


class RequestSettings(Group):
    """What a request may be."""

    cors_origins: CommaSeparated[str] = ("*",)
    """Origins whose pages may read, separated by commas. Those of a named origin may also sign in; `*` names none."""
    item_bytes: Bytes = 1024 * 1024
    """Bytes that one posting in a write may have."""
    bytes: Bytes = Field(default=32 * 1024 * 1024, validation_alias="FEED_REQUEST_BYTES")
    """Bytes that one write may have."""
    body_timeout: Seconds = 30.0
    """Seconds between two pieces of a request's body."""
    timeout: Seconds = Field(default=120.0, validation_alias="FEED_REQUEST_TIMEOUT")
    """Seconds for a request's whole body. In the default time `FEED_REQUEST_BYTES` need 2.2 Mbit/s."""
    filter_values: Count = 100
    """Values and words that one filter may have."""
