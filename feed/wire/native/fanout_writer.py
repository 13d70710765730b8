"""The choice, made once at start, of how a chunk is written to all live subscribers of a group.

There are three ways. They write the same bytes, and differ in what that costs:
- `io_uring`: one call into C, which hands all writes to the kernel at once. Many container platforms forbid io_uring.
- `send`: one call into C, which calls send(2) for one subscriber after another.
- `python`: each subscriber's transport is asked to write. It needs no C compiler at installation. Connections with TLS
  are always written in this way.
"""

import importlib
import os
import socket
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from feed.errors import ConfigurationError

if TYPE_CHECKING:
    from feed.wire.native._batch import Writer

Way = Literal["io_uring", "send", "python"]

_MODULE = "feed.wire.native._batch"


@dataclass(frozen=True, slots=True)
class FanoutWriter:
    """The way that was chosen, and the reason in plain words."""

    way: Way
    reason: str
    extension: ModuleType | None = None
    """The module with the types `Socket` and `Member`; None with `python`."""
    writer: "Writer | None" = None
    """None with `python`."""


IN_PYTHON = FanoutWriter("python", "it was asked for")


def choose_writer(wanted: Way | Literal["auto"]) -> FanoutWriter:
    """Return the best way that works here, or the one that is wanted.

    Raises ConfigurationError where that one does not work.
    """
    if wanted == "python":
        return IN_PYTHON
    try:
        extension = importlib.import_module(_MODULE)
    except ImportError as error:
        if wanted == "auto":
            return FanoutWriter("python", f"the native extension is not there ({error.msg})")
        raise ConfigurationError(f"FEED_FANOUT_WRITER={wanted} needs the native extension: {error.msg}") from None
    reason = "it was asked for"
    if wanted != "send":
        try:
            ring = _tried(extension.Writer(True))
        except OSError as error:
            reason = f"the system does not allow io_uring ({os.strerror(error.errno or 0)})"
            if wanted == "io_uring":
                raise ConfigurationError(f"FEED_FANOUT_WRITER=io_uring: {reason}") from None
        else:
            return FanoutWriter("io_uring", "the kernel allows it" if wanted == "auto" else reason, extension, ring)
    return FanoutWriter("send", reason, extension, extension.Writer(False))


def _tried(writer: "Writer") -> "Writer":
    """Write to two sockets; raises OSError where io_uring could be set up and then does not write."""
    extension = importlib.import_module(_MODULE)
    pairs = [socket.socketpair() for _ in range(2)]
    try:
        members = {extension.Member(extension.Socket(near.fileno()), 0): None for near, _ in pairs}
        left = writer.write(members, b"x", b"")
        if left or not writer.by_ring or any(far.recv(2) != b"x" for _, far in pairs):
            raise OSError(1, "io_uring does not write")
    finally:
        for pair in pairs:
            for one in pair:
                one.close()
    return writer
