"""A TCP connection of a client, with its bounds: it takes the place of Hypercorn's TCPServer.

What it does that Hypercorn 0.18 does not, and why (`install.py` says how it comes here):
- Hypercorn has a task, a reader, a writer and a task group for each connection, and starts and cancels a task for each idle
  time. Here the event loop calls this object with what has come, and a timer measures the idle time.
- Hypercorn's `_close` awaits `wait_closed()` without a bound: one stalled client, or one that never answers TLS's
  close_notify, keeps the process alive for ever. Here closing has `close_timeout`; then the connection is reset (linger 0: a
  plain abort would leave megabytes in FIN-WAIT-1).
- Hypercorn's `protocol_send` waits without a bound for a client that does not read. Here it has `send_timeout`. It also
  catches only ConnectionError, which ETIMEDOUT is not, so a client that vanished is logged as a traceback (hypercorn #361).
- A connection that is closed in the middle of a request is reset by the kernel, and the answer may be lost. Here the
  server first reads on for a while (`_linger`).
- Connections that stay silent would time out in one turn of the event loop if they came together; here the idle timeout is
  up to `_SPREAD` longer, at random.
- The transport's default buffer is 64 KB; here it is `write_buffer`, which also bounds what is pushed.
"""

import asyncio
import contextlib
import random
from typing import Any

from feed.hypercorn_adapter.connection import drop
from feed.hypercorn_adapter.door import Door
from feed.hypercorn_adapter.http1 import Http1
from feed.hypercorn_adapter.http2 import Http2
from feed.hypercorn_adapter.proxy_protocol import Malformed, missing, parse
from feed.hypercorn_adapter.refusals import Rations
from feed.hypercorn_adapter.tcp_info import is_over
from feed.hypercorn_adapter.worker_parts import WorkerParts

_LINGER = 8 * 1024 * 1024
"""Bytes of a request body that are read and discarded after an early answer. Many clients read the answer only after they
have sent everything; a reset before that would lose it."""
_SPREAD = 0.4
"""How much longer than `keep_alive_timeout` a connection may idle at random, as a fraction of it."""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
"""What a client says first on a connection that it knows to be HTTP/2 (RFC 9113, 3.3)."""


class TcpConnection(asyncio.Protocol):
    """One connection of a client. It gives what comes to the protocol that the first bytes, or TLS, name."""

    __slots__ = (
        "__weakref__", "_bucket", "_connections", "_drains", "_first", "_full", "_lingers_for", "_proxied", "_rations",
        "_timer", "address", "client", "config", "door", "loop", "parts", "protocol", "scheme", "stalled", "transport",
        "turn",
    )  # fmt: skip

    lingers = True
    """A connection that ends in the middle of a request is read on for a while, so that its answer is not lost."""

    def __init__(
        self, parts: WorkerParts, peer: tuple[str, int], bucket: str, connections: "set[TcpConnection]"
    ) -> None:
        self.parts = parts
        self.config = parts.config
        self.loop = asyncio.get_running_loop()
        self.client = peer
        """Address and port of the client, as far as the PROXY protocol or the socket tells."""
        self.address: tuple[str, int] = ("", 0)
        """The address and port that the client connected to."""
        self.scheme = "http"
        self.transport: Any = None
        self.door: Any = None
        """Through which everything is written (door.py)."""
        self.turn = asyncio.Lock()
        """Held by the stream that waits for the transport to empty."""
        self.stalled = False
        """Whether it was dropped, since its client took nothing."""
        self.protocol: Http1 | Http2 | None = None
        self._rations: Rations | None = None
        self._bucket = bucket
        self._connections = connections
        self._first = b""  # what came before it was known which protocol it is of
        self._proxied = parts.config.proxied(peer[0])
        self._lingers_for: int | None = None  # bytes that it may still discard before it closes; None while it serves
        self._timer: asyncio.TimerHandle | None = None
        self._drains: asyncio.Future[None] | None = None  # resolved when the transport has emptied
        self._full = False  # whether the transport holds more than it may

    @property
    def rations(self) -> Rations:
        """The rations of refused requests that this connection draws on."""
        if self._rations is None:
            self._rations = self.config.refusals.rations(self.client[0])
        return self._rations

    @property
    def terminated(self) -> bool:
        """Whether the process is stopping: no request begins any more."""
        return bool(self.parts.terminated.is_set())

    @property
    def ended(self) -> bool:
        """Whether the connection is over, so that requests already received need not begin."""
        if self.transport.is_closing():
            return True
        sock = self.transport.get_extra_info("socket")
        return sock is None or is_over(sock)  # uvloop does not look at a socket while it reads nothing from it

    # What the event loop calls.

    def connection_made(self, transport: Any) -> None:
        """Begin to serve; over TLS this comes after the handshake."""
        self.transport = transport
        self.door = Door(transport, self.config.native)
        sock = transport.get_extra_info("socket")
        try:
            transport.set_write_buffer_limits(high=self.config.write_buffer)
            self.address = sock.getsockname()[:2]
        except (RuntimeError, OSError, AttributeError):
            transport.abort()  # the client was gone before it began
            return
        self._connections.add(self)
        self.config.connections.add(self)
        self.config.peers.add(self)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.scheme = "https"
            if tls.selected_alpn_protocol() == "h2" and not self._proxied:
                self._begin_http2()
        if self._proxied:
            self._timer = self.loop.call_later(self.config.ssl_handshake_timeout, self._not_named)
        else:
            self.idle()

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self._lingers_for is not None:
            self._lingers_for -= len(data)
            if self._lingers_for <= 0:
                self._close_now()
        elif self.protocol is not None:
            self.protocol.data_received(data)
        else:
            self._begin(data)

    def eof_received(self) -> bool:
        """Close: a client that has shut its side down takes no answer."""
        return False

    def pause_writing(self) -> None:
        """Let nobody write until the transport has emptied."""
        self._full = True

    def resume_writing(self) -> None:
        """Let those go on who wait for the transport."""
        self._full = False
        if self._drains is not None and not self._drains.done():
            self._drains.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection, and let its protocol end what is under way: a few of a herd at a time."""
        self.door.close()
        self.not_idle()
        self._connections.discard(self)
        self.config.connections.forget(self)
        self.config.peers.forget(self)
        self.config.admission.left(self._bucket)
        self.resume_writing()
        if self.protocol is not None:
            self.config.ends.call(self._end)

    def _end(self) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            protocol.connection_lost()

    # What the first bytes say.

    def _begin(self, data: bytes) -> None:
        self._first += data
        if self._proxied and not self._named():
            return
        first = self._first
        if self.protocol is None:
            if _PREFACE.startswith(first[: len(_PREFACE)]):
                if len(first) < len(_PREFACE):
                    return  # this may become HTTP/2
                self._begin_http2()
            else:
                self.protocol = Http1(self)
        self._first = b""
        if first and self.protocol is not None:
            self.protocol.data_received(first)

    def _begin_http2(self) -> None:
        self.protocol = Http2(self)
        self.protocol.initiate()

    def upgrade(self, headers: list[tuple[bytes, bytes]], settings: bytes, rest: bytes) -> None:
        """Go on over HTTP/2 (h2c) with the request that asked for it; `rest` is what came behind that."""
        self.protocol = http2 = Http2(self)
        http2.initiate(headers, settings)
        if rest:
            http2.data_received(rest)

    def _named(self) -> bool:
        """Read what a proxy says of the connection; False where that has not come, or the connection was dropped."""
        head = self._first
        try:
            # `missing` wants no octet of what follows, so it is asked until it wants none.
            size = 0
            while more := missing(head[:size]):
                size += more
                if size > len(head):
                    return False
            ends = parse(head[:size])
        except Malformed:
            self._refuse_unnamed()
            return False
        self._first = head[size:]
        self._proxied = False
        if ends is not None:
            self.client, self.address = ends.client, ends.server
        tls = self.transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            self._begin_http2()
        self.idle()
        return True

    def _not_named(self) -> None:
        if self._first:
            self._refuse_unnamed()
        else:
            self.drop()

    def _refuse_unnamed(self) -> None:
        self.config.admission.refuse(self.client[0], "no_proxy_header")
        self.drop()

    # What its protocol calls.

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport."""
        if not self.transport.is_closing():
            self.door.write(data)

    async def drained(self) -> None:
        """Wait until the transport holds no more than it may. A client that takes nothing for `send_timeout` is dropped.

        Raises OSError where the connection is gone.
        """
        transport = self.transport
        while (size := transport.get_write_buffer_size()) > self.config.write_buffer:
            if transport.is_closing():
                raise ConnectionResetError
            try:
                async with asyncio.timeout(self.config.send_timeout):
                    if self._full:
                        if self._drains is None or self._drains.done():
                            self._drains = self.loop.create_future()
                        await asyncio.shield(self._drains)
                    if transport.get_write_buffer_size() > self.config.write_buffer:
                        await asyncio.sleep(0.005)  # TLS says too early that it has emptied: it holds bytes of its own
            except TimeoutError:
                if transport.get_write_buffer_size() >= size:
                    self.stalled = True
                    self.drop()
                    raise ConnectionAbortedError from None
        if transport.is_closing():
            raise ConnectionResetError

    def idle(self) -> None:
        """Begin to count the time in which no complete request arrives; a process that stops closes the connection."""
        self.not_idle()
        if self.terminated:
            self.close()
            return
        longest = self.config.keep_alive_timeout * random.uniform(1, 1 + _SPREAD)
        self._timer = self.loop.call_later(longest, self.close)

    def not_idle(self) -> None:
        """Stop counting: a request is being answered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Close when all that was written has left, within `close_timeout`; linger where the client may still be sending."""
        if self.transport.is_closing() or self._lingers_for is not None:
            return
        if self.protocol is not None and self.protocol.half_read:
            self._linger()
        else:
            self._close_now()

    def drop(self) -> None:
        """Reset the connection at once, with what is unsent."""
        drop(self)

    def stop(self) -> None:
        """Close the connection if it is idle, or when it will be: the process is stopping."""
        if self._timer is not None:
            self.close()
        elif self.protocol is not None:
            self.protocol.stop()

    def _linger(self) -> None:
        """Stop sending, and throw away what still comes, up to `_LINGER` bytes and for `close_timeout`; then close.

        To close while the client sends would make the kernel reset the connection, and the reset may overtake our answer
        (RFC 9112, 9.6).
        """
        self._lingers_for = _LINGER
        self.not_idle()
        if self.protocol is not None:
            self.protocol.closing()
        with contextlib.suppress(NotImplementedError, OSError, RuntimeError):  # TLS has no such end
            self.transport.write_eof()
        self.transport.resume_reading()
        self._timer = self.loop.call_later(self.config.close_timeout, self._close_now)

    def _close_now(self) -> None:
        self.not_idle()
        if self.protocol is not None:
            self.protocol.closing()
        self.transport.close()
        # A client that takes nothing, or that never answers the end of TLS, would keep the connection for ever.
        self._timer = self.loop.call_later(self.config.close_timeout, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        self.drop()
