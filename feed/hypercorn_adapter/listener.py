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
from feed.hypercorn_adapter.proxy_protocol import Ends, Malformed, missing, parse

log = structlog.get_logger(__name__)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_TURN = 0.0005
"""Seconds of one turn of the event loop in which connections are taken off the queue. An event takes about five turns from
the log to its subscribers, and a flood of connections is in each of them."""
_EACH = {False: 8, True: 2}
"""Of those, so many let in: about a millisecond. Over TLS (True) a handshake follows."""
_PAUSE = 1.0
"""Seconds without accepting when the system has no more files or memory for it."""
_SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener:
    """Listens on one socket, and gives `serve` each connection in a task of its own; what Hypercorn needs of a server."""

    def __init__(self, sock: ListeningSocket, serve: Serve, backlog: int, tls: dict[str, Any]) -> None:
        self._sock = sock
        self._config: WireConfig = sock.config
        self._serve = serve
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._greeting: set[asyncio.Task[None]] = set()  # those that Hypercorn does not know of yet
        self._pause: asyncio.TimerHandle | None = None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # which accepted connections inherit
        sock.listen(backlog)
        self._loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Accept no more; connections go on, handshakes do not."""
        if self._pause is not None:
            self._pause.cancel()
        for task in self._greeting:
            task.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()

    async def wait_closed(self) -> None:
        """Return at once: `close` waits for nothing."""

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
            task = self._loop.create_task(self._begin(sock, address[0], bucket), name="connection")
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

    async def _begin(self, sock: socket.socket, address: str, bucket: str) -> None:
        reader = asyncio.StreamReader(loop=self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=self._loop)
        try:
            try:
                transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, sock, **self._tls)
            except (OSError, ssl.SSLError):
                return  # gone already, or no good at TLS
            writer = Writer(transport, protocol, reader, self._loop)
            if not self._config.proxied(address) or await self._named(reader, writer, address):
                self._greeting.discard(cast("asyncio.Task[None]", asyncio.current_task()))
                await self._serve(reader, writer)
        except Exception:
            log.exception("a connection failed")
        finally:
            self._config.admission.left(bucket)

    async def _named(self, reader: asyncio.StreamReader, writer: "Writer", address: str) -> bool:
        """Read what the proxy says of a connection; False where it was dropped, for it does not say it."""
        head = b""
        try:
            async with asyncio.timeout(self._config.ssl_handshake_timeout):
                while more := missing(head):
                    head += await reader.readexactly(more)
            writer.ends = parse(head)
        except (Malformed, TimeoutError, asyncio.IncompleteReadError, OSError) as error:
            if not (isinstance(error, asyncio.IncompleteReadError) and not head and not error.partial):  # a mere look
                self._config.admission.refuse(address, "no_proxy_header")
            reset_on_close(writer.transport.get_extra_info("socket"))
            writer.transport.abort()
            return False
        return True


class Writer(asyncio.StreamWriter):
    """A connection's writer; `ends` are what a proxy says that they are."""

    ends: Ends | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport says, but the ends that a proxy named in the place of the socket."""
        if name == "socket" and self.ends is not None:
            return self.ends
        return super().get_extra_info(name, default)


class Asyncio:
    """The module `asyncio`, as Hypercorn sees it while the wire is installed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def start_server(self, serve: Serve, *, sock: socket.socket, backlog: int, **more: Any) -> Any:
        """Return a server that listens on `sock`, as `asyncio.start_server` does."""
        if not isinstance(sock, ListeningSocket):  # another server's in this process
            return await asyncio.start_server(serve, sock=sock, backlog=backlog, **more)
        return Listener(sock, serve, backlog, more)


asyncio_with_listener = Asyncio()
