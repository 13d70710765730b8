"""The door to the socket of a connection: everything that is written to its transport goes through here.

The native writer (feed/wire/native) writes past the transport. It may do so only while nothing waits to be written before:
the door knows what waits, and tells the writer.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from feed.wire.native._batch import Socket


class Door:
    """Writes to one transport. `native` is the extension, or None where nothing is written past the transport."""

    __slots__ = ("_get_size", "_holds", "_transport", "socket")

    def __init__(self, transport: Any, native: "ModuleType | None") -> None:
        self._transport = transport
        self._get_size = transport.get_write_buffer_size
        self._holds = False
        self.socket = None if native is None else _native_socket(transport, native)
        """What the native writer writes to; None over TLS."""

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport, which writes them now or as soon as the client takes them."""
        self._transport.write(data)
        self._look()

    def writelines(self, parts: Iterable[bytes | memoryview]) -> None:
        """Hand several pieces to the transport."""
        self._transport.writelines(parts)
        self._look()

    def hold(self, holds: bool) -> None:
        """Say whether somebody keeps bytes that must go before anything else."""
        self._holds = holds
        self._look()

    def close(self) -> None:
        """Take the descriptor from the native writer: the transport closes it right after it has said so."""
        if self.socket is not None:
            self.socket.fd = -1  # the number of the descriptor is given to the next connection at once

    def _look(self) -> None:
        if self.socket is not None:
            self.socket.open = not (self._holds or self._get_size())


def _native_socket(transport: Any, native: "ModuleType") -> "Socket | None":
    if transport.get_extra_info("sslcontext") is not None:
        return None
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0 or transport.is_closing():
        return None
    found: Socket = native.Socket(sock.fileno())
    found.open = not transport.get_write_buffer_size()
    return found
