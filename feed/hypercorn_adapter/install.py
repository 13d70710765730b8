"""Installing the wire: our classes in the places where Hypercorn looks its own up, while `feed serve` runs.

Hypercorn names its classes in long methods (`worker_serve`, `ProtocolWrapper`) and takes none from outside. To copy those
methods would be the greater evil, so two names are replaced: never at import, for as long as the context lasts, and
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
        "feed.hypercorn_adapter.worker_parts.PartsTaker",
        "hypercorn.asyncio.tcp_server.TCPServer",
    ),
    "hypercorn.asyncio.run.asyncio": (
        "feed.hypercorn_adapter.listener.asyncio_with_listener",
        "hypercorn.asyncio.tcp_server.asyncio",
    ),
}
_SHAPES: dict[str, list[str]] = {
    # What our classes take the place of, with the names of the parameters.
    "hypercorn.asyncio.tcp_server.TCPServer.__init__": [
        "self", "app", "loop", "config", "context", "state", "reader", "writer",
    ],
    "hypercorn.app_wrappers.ASGIWrapper.__init__": ["self", "app"],
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
        for name in ("_data", "_headers_buffer", "max_frame_size"):
            if not hasattr(connection.incoming_buffer, name):
                return f"h2.frame_buffer.FrameBuffer.{name}"
    except (ImportError, AttributeError) as error:
        return str(error)
    return None
