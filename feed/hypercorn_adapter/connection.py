"""The connection under a request: its wire where it has one, and a way to cut a client off where it has none.

Plain Hypercorn 0.18 offers no way to drop a connection: the bound `send` that it hands to the application is the only thread
that leads there (HTTPStream → protocol → TCPServer → transport). Where the thread breaks (another server, another
version), `cut()` does nothing and the connection is left to the server.
"""

import contextlib
import socket
import struct
from collections import Counter
from typing import Any
from weakref import WeakSet

from starlette.types import Scope, Send

from feed.hypercorn_adapter.server_wire import ServerWire

WIRE = "feed.wire"
"""The extension of the ASGI scope that holds the wire."""
_KEY = "feed.connection"


class Connection:
    """The connection that one request came on."""

    __slots__ = ("send", "wire")

    def __init__(self, send: Send, wire: ServerWire | None) -> None:
        self.send = send  # the server's own, past every middleware
        self.wire = wire

    @property
    def reachable(self) -> bool:
        """Whether `cut` has an effect."""
        return self.wire is not None or _transport(self.server) is not None

    @property
    def lingers(self) -> bool:
        """Whether a request may be answered before its body was read, without the answer being lost."""
        return getattr(self.server, "lingers", False)

    def cut(self) -> None:
        """End the response at once, and drop the connection with what it has not sent where nothing else helps."""
        if self.wire is not None:
            self.wire.cut()
        elif (server := self.server) is not None:
            drop(server)

    @property
    def server(self) -> Any:
        """The connection's own object: ours (tcp.py), or Hypercorn's TCPServer; None where the thread breaks."""
        if self.wire is not None:
            return self.wire.server
        stream = getattr(self.send, "__self__", None)
        protocol = getattr(getattr(stream, "send", None), "__self__", None)
        return getattr(getattr(protocol, "send", None), "__self__", None)


class Connections:
    """The open connections: all of them under `feed serve`, and under other servers those that a request came on."""

    def __init__(self) -> None:
        self._servers: WeakSet[Any] = WeakSet()
        self.refused: Counter[str] = Counter()
        """How many were closed before they began, by reason: too_many, too_fast, no_proxy_header."""

    def add(self, server: Any) -> None:
        """Add a TCPServer, which is forgotten with the object; None has no effect."""
        if server is not None:
            self._servers.add(server)

    def __len__(self) -> int:
        return len(self._servers)

    def forget(self, server: Any) -> None:
        """Stop counting a connection that has ended, even if something still refers to it."""
        self._servers.discard(server)

    def cut(self) -> None:
        """Drop all connections: Hypercorn waits without a bound for clients that do not take what it has for them."""
        for server in list(self._servers):
            drop(server)


def _transport(server: Any) -> Any:
    ours = getattr(server, "transport", None)
    return getattr(getattr(server, "writer", None), "transport", None) if ours is None else ours


def drop(server: Any) -> None:
    """Reset a connection with all that is unsent: a plain abort would leave megabytes in FIN-WAIT-1."""
    # One that is closing may yet wait for its client: for what is unsent, or half a minute for the end of TLS.
    transport = _transport(server)
    if transport is None:
        return
    try:
        sock = transport.get_extra_info("socket")
    except AttributeError:
        return  # asyncio's TLS transport once it has closed
    reset_on_close(sock)
    transport.abort()


def reset_on_close(sock: Any) -> None:
    """Let the kernel reset the connection when the socket is closed; None has no effect."""
    if sock is not None and sock.fileno() != -1:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def remember_connection(scope: Scope, send: Send) -> Connection:
    """Leave the connection in the scope. Only the outermost caller sees the server's own `send`."""
    extensions = scope.setdefault("extensions", {})
    found = extensions[_KEY] = Connection(send, extensions.get(WIRE))
    return found


def connection_of(scope: Scope) -> Connection:
    """The connection of a request, as `remember_connection` left it."""
    found: Connection = scope["extensions"][_KEY]
    return found
