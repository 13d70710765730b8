"""The listener: accepts connections a few at a time, and lets in those that may come.

What it replaces, and why: asyncio and uvloop accept whatever is there in one turn of the event loop, make a transport, a
reader, a writer and a task for each (over TLS the handshake as well), and only then does anybody learn who it is. A client
that connects as fast as it can costs half a core. Here it costs an accept and a close. Hypercorn calls
`asyncio.start_server` by the name of the module, so it is given one in which that is ours (install.py).
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, cast

import structlog

from feed.hypercorn_adapter.config import ListeningSocket, WireConfig
from feed.hypercorn_adapter.connection import reset_on_close
from feed.hypercorn_adapter.tcp import TcpConnection
from feed.hypercorn_adapter.worker_parts import TakenParts, WorkerParts

log = structlog.get_logger(__name__)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_TURN = 0.0005
"""Seconds of one turn of the event loop in which connections are taken off the queue. An event takes about five turns from
the log to its subscribers, and a flood of connections is in each of them."""
_EACH = {False: 8, True: 2}
"""Of those, so many let in: about a millisecond. Over TLS (True) a handshake follows."""
_LOOK_AGAIN = 0.01
"""Seconds between two looks whether all connections have ended."""
_PAUSE = 1.0
"""Seconds without accepting when the system has no more files or memory for it."""
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener:
    """Listens on one socket, and makes a `TcpConnection` of each connection; what Hypercorn needs of a server."""

    def __init__(self, sock: ListeningSocket, parts: WorkerParts, backlog: int, tls: dict[str, Any]) -> None:
        self._sock = sock
        self._config: WireConfig = sock.config
        self._parts = parts
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._greeting: set[asyncio.Task[None]] = set()  # of connections that are not made yet
        self._connections: set[TcpConnection] = set()
        self._pause: asyncio.TimerHandle | None = None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # which accepted connections inherit
        sock.listen(backlog)
        self._loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more; requests that are being answered go on, handshakes do not."""
        if self._pause is not None:
            self._pause.cancel()
        for task in self._greeting:
            task.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        for connection in list(self._connections):
            connection.stop()

    async def wait_closed(self) -> None:
        """Wait until every connection has ended, for at most the time that Hypercorn gives them."""
        end = self._loop.time() + self._config.graceful_timeout
        while self._connections and self._loop.time() < end:
            await asyncio.sleep(_LOOK_AGAIN)
        for connection in list(self._connections):
            connection.drop()

    def _accept(self) -> None:
        """Accept the connections that wait in the queue: all of them, unless they are a herd."""
        left = _EACH[bool(self._tls)]
        end = monotonic() + _TURN
        while True:
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._scarce(error)
                return
            sock.setblocking(False)
            bucket = self._config.admission.enter(address[0])
            if bucket is None:
                reset_on_close(sock)
                sock.close()
                if monotonic() > end:
                    return
                continue
            connection = TcpConnection(self._parts, address[:2], bucket, self._connections)
            task = self._loop.create_task(self._begin(sock, connection, bucket), name="connection")
            self._greeting.add(task)
            task.add_done_callback(self._greeting.discard)
            left -= 1
            if not left:
                return

    def _scarce(self, error: OSError) -> None:
        if error.errno not in _SCARCE:
            return  # of the connection's own making (accept(2))
        log.error("no connection can be accepted for a while", error=str(error), seconds=_PAUSE)
        self._loop.remove_reader(self._sock.fileno())
        self._pause = self._loop.call_later(_PAUSE, self._loop.add_reader, self._sock.fileno(), self._accept)

    async def _begin(self, sock: socket.socket, connection: "TcpConnection", bucket: str) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock, **self._tls)
        except (OSError, ssl.SSLError):
            pass  # gone already, or no good at TLS
        except Exception:
            log.exception("a connection failed")
        finally:
            if connection.transport is None:  # else it tells when it has ended
                self._config.admission.left(bucket)


class Asyncio:
    """The module `asyncio`, as Hypercorn sees it while the wire is installed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def start_server(self, serve: Serve, *, sock: socket.socket, backlog: int, **more: Any) -> Any:
        """Return a server that listens on `sock`, as `asyncio.start_server` does."""
        if not isinstance(sock, ListeningSocket):  # another server's in this process
            return await asyncio.start_server(serve, sock=sock, backlog=backlog, **more)
        taken = TakenParts()
        # In a task of its own, since Hypercorn waits at its end for the tasks that serve connections.
        await asyncio.get_running_loop().create_task(_awaited(serve(cast(Any, taken), cast(Any, taken))))
        if taken.parts is None:
            raise RuntimeError("Hypercorn has made no connection of what it was given")
        return Listener(sock, taken.parts, backlog, more)


async def _awaited(serving: Awaitable[None]) -> None:
    await serving


asyncio_with_listener = Asyncio()
