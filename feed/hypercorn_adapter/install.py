"""Installing the wire: our classes in the places where Hypercorn looks its own up, while `feed serve` runs.

Hypercorn names its classes in long methods (`worker_serve`, `ProtocolWrapper`) and takes none from outside. To copy those
methods would be the greater evil, so four names are replaced: never at import, for as long as the context lasts, and
only if everything that our classes build on is there. Delete this file when Hypercorn takes a class.
"""

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

log = structlog.get_logger(__name__)

_PLACES = {
    # Where a name is looked up: what takes its place, and what is there otherwise.
    "hypercorn.asyncio.run.TCPServer": (
        "feed.hypercorn_adapter.tcp.TcpConnection",
        "hypercorn.asyncio.tcp_server.TCPServer",
    ),
    "hypercorn.asyncio.run.asyncio": (
        "feed.hypercorn_adapter.listener.asyncio_with_listener",
        "hypercorn.asyncio.tcp_server.asyncio",
    ),
    "hypercorn.protocol.H11Protocol": ("feed.hypercorn_adapter.http1.Http1", "hypercorn.protocol.h11.H11Protocol"),
    "hypercorn.protocol.H2Protocol": ("feed.hypercorn_adapter.http2.Http2", "hypercorn.protocol.h2.H2Protocol"),
}
_SHAPES: dict[str, list[str]] = {
    # What our classes call or override, with the names of the parameters.
    "hypercorn.asyncio.tcp_server.TCPServer.__init__": [
        "self", "app", "loop", "config", "context", "state", "reader", "writer",
    ],
    "hypercorn.asyncio.tcp_server.TCPServer.run": ["self"],
    "hypercorn.asyncio.tcp_server.TCPServer.protocol_send": ["self", "event"],
    "hypercorn.asyncio.tcp_server.TCPServer._close": ["self"],
    "hypercorn.asyncio.tcp_server.TCPServer._read_data": ["self"],
    "hypercorn.asyncio.tcp_server.TCPServer._idle_timeout": ["self"],
    "hypercorn.asyncio.tcp_server.TCPServer._initiate_server_close": ["self"],
    "hypercorn.protocol.h11.H11Protocol._create_stream": ["self", "request"],
    "hypercorn.protocol.h11.H11Protocol.stream_send": ["self", "event"],
    "hypercorn.protocol.h11.H11Protocol._handle_events": ["self"],
    "hypercorn.protocol.h11.H11Protocol._maybe_recycle": ["self"],
    "hypercorn.protocol.h11.H11Protocol._send_error_response": ["self", "status_code"],
    # Ours stands in the place of this class, and has what ProtocolWrapper calls.
    "hypercorn.protocol.h2.H2Protocol.__init__": [
        "self", "app", "config", "context", "task_group", "connection_state", "ssl", "client", "server", "send",
    ],
    "hypercorn.protocol.h2.H2Protocol.initiate": ["self", "headers", "settings"],
    "hypercorn.protocol.h2.H2Protocol.handle": ["self", "event"],
    "hypercorn.protocol.ProtocolWrapper.__init__": [
        "self", "app", "config", "context", "task_group", "state", "ssl", "client", "server", "send", "alpn_protocol",
    ],
    "hypercorn.protocol.ProtocolWrapper.handle": ["self", "event"],
    "hypercorn.protocol.http_stream.HTTPStream.__init__": [
        "self", "app", "config", "context", "task_group", "ssl", "client", "server", "send", "stream_id",
    ],
    "hypercorn.protocol.http_stream.HTTPStream.handle": ["self", "event"],
    "hypercorn.protocol.http_stream.HTTPStream.app_send": ["self", "message"],
}  # fmt: skip

_users = 0  # servers in this process; tests run several


@contextmanager
def installed() -> Iterator[bool]:
    """While entered, Hypercorn serves by wire; False (and one warning) where this Hypercorn is not the one we know."""
    global _users  # noqa: PLW0603 - Hypercorn's names are as global
    if strange := _strange():
        log.warning("this Hypercorn is built in another way: streams go without direct writes", strange=strange)
        yield False
        return
    _users += 1
    for place, (ours, _) in _PLACES.items():
        _set(place, _get(ours))
    try:
        yield True
    finally:
        _users -= 1
        if not _users:
            for place, (_, theirs) in _PLACES.items():
                _set(place, _get(theirs))


def _get(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def _set(path: str, value: Any) -> None:
    module, name = path.rsplit(".", 1)
    setattr(importlib.import_module(module), name, value)


def _strange() -> str | None:
    """The first thing that is not as our classes expect it."""
    try:
        for place, either in _PLACES.items():
            if _get(place) not in [_get(one) for one in either]:
                return place
        if "start_server" not in _get("hypercorn.asyncio.run.worker_serve").__code__.co_names:
            return "hypercorn.asyncio.run.worker_serve"
        for path, parameters in _SHAPES.items():
            owner, name = path.rsplit(".", 1)
            if list(inspect.signature(getattr(_get(owner), name)).parameters) != parameters:
                return path
        connection = _get("h2.connection.H2Connection")()
        for name in (
            "outbound_flow_control_window",
            "max_outbound_frame_size",
            "streams",
            "_receive_frame",
            "decoder",
            "_frame_dispatch_table",
        ):
            if not hasattr(connection, name):
                return f"h2.connection.H2Connection.{name}"
        buffer = _get("h11.Connection")(_get("h11.SERVER"))._receive_buffer
        for name in ("_data", "_multiple_lines_search", "_extract", "maybe_extract_lines"):
            if not hasattr(buffer, name):
                return f"h11._receivebuffer.ReceiveBuffer.{name}"
        for name in ("_data", "_headers_buffer", "max_frame_size"):
            if not hasattr(connection.incoming_buffer, name):
                return f"h2.frame_buffer.FrameBuffer.{name}"
    except (ImportError, AttributeError) as error:
        return str(error)
    return None
