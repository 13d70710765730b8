"""A TCP connection: Hypercorn's TCPServer, of which each connection has one, with bounds.

What it replaces, and why (Hypercorn 0.18; delete each part when upstream has it):
- `_close` awaits `wait_closed()` without a bound: one stalled client, or one that never answers TLS's close_notify, keeps
  the process alive forever. The idle timeout closes a connection without checking that it is still idle. Here closing has
  `close_timeout`; then the connection is reset (linger 0: a plain abort would leave megabytes in FIN-WAIT-1).
- `protocol_send` waits without a bound for a client that does not read. Here it has `send_timeout`. It also catches only
  ConnectionError, which ETIMEDOUT is not, so a client that vanished is logged as a traceback (hypercorn #361). And a
  request that is cancelled at shutdown finds its task group closed.
- A connection that is closed in the middle of a request is reset by the kernel, and the answer may be lost. Here the
  server first reads on for a while (`_linger`).
- Connections that arrive together are all accepted in one turn of the event loop; here they begin a few at a time. If they
  stay silent they would also time out in one turn; here the idle timeout is up to `_SPREAD` longer, at random.
- A connection and its protocol refer to each other, so only the garbage collector frees them, minutes later. Here the
  reference is deleted.
- The transport's default buffer is 64 KB; here it is `write_buffer`, which also bounds what is pushed.
"""

import asyncio
import contextlib
import random
from functools import cached_property
from typing import Any

from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Closed, Event, RawData

from feed.hypercorn_adapter.config import WireConfig
from feed.hypercorn_adapter.connection import drop
from feed.hypercorn_adapter.door import Door
from feed.hypercorn_adapter.refusals import Rations
from feed.hypercorn_adapter.tcp_info import is_over

_READ = 64 * 1024
"""Bytes that are read at once."""
_LINGER = 8 * 1024 * 1024
"""Bytes of a request body that are read and discarded after an early answer. Many clients read the answer only after they
have sent everything; a reset before that would lose it."""
_SPREAD = 0.4
"""How much longer than `keep_alive_timeout` a connection may idle at random, as a fraction of it."""


class TcpConnection(TCPServer):
    """One connection of a client, with its bounds."""

    config: WireConfig
    lingers = True
    """A connection that ends in the middle of a request is read on for a while, so that its answer is not lost."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.door = Door(self.writer.transport, self.config.native)
        self.turn = asyncio.Lock()  # held by the stream that waits for the transport to empty
        self._lingers_for: int | None = None  # bytes that it may still discard before it closes; None while it serves
        self.stalled = False  # it was dropped, since its client took nothing

    @cached_property
    def rations(self) -> Rations:
        """The rations of refused requests that this connection draws on."""
        client = self.protocol.client
        return self.config.refusals.rations(client[0] if client else "")

    @property
    def ended(self) -> bool:
        """Whether the connection is over, so that requests already received need not begin."""
        transport = self.writer.transport
        if transport.is_closing():
            return True
        sock = transport.get_extra_info("socket")
        return sock is None or is_over(sock)  # uvloop does not look at a socket while it reads nothing from it

    async def run(self) -> None:
        """Serve the connection until either side closes it."""
        transport: Any = self.writer.transport
        try:
            transport.set_write_buffer_limits(high=self.config.write_buffer)
        except RuntimeError:
            return  # the client was gone before it began
        try:
            self.config.connections.add(self)
            self.config.peers.add(self)
            await self.config.begin.admitted()
            if not self.ended:  # else its client left while it waited
                await super().run()
        finally:
            if not transport.is_closing():
                transport.abort()
            self.config.connections.forget(self)
            self.config.peers.forget(self)
            self._let_go()

    async def _read_data(self) -> None:
        while not self.reader.at_eof():
            try:
                data = await self.reader.read(_READ)
            except OSError:
                break
            if self._lingers_for is None:
                await self.protocol.handle(RawData(data))
            elif len(data) < self._lingers_for:
                self._lingers_for -= len(data)
            else:
                break
        await self.protocol.handle(Closed())
        await self.config.ends.admitted()  # so that ten thousand that leave at once do not fill one turn of the loop
        await self.idle_task.stop()  # else the connection stays in memory until its idle timeout

    def _let_go(self) -> None:
        """Let go of the protocol, which refers to this connection: the memory of both is then free at once."""
        with contextlib.suppress(AttributeError):  # its client left before it began
            del self.protocol

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol wants of the connection."""
        if isinstance(event, Closed) and self._half_read:
            self._linger()
            return
        if not isinstance(event, RawData):
            try:
                await super().protocol_send(event)
            except RuntimeError:
                if not self.context.terminated.is_set():
                    raise
            return
        async with self.send_lock:
            try:
                self.door.write(event.data)
                await self.drained()
            except (OSError, RuntimeError):
                await self.protocol.handle(Closed())

    async def drained(self) -> None:
        """Wait until the transport holds no more than it may. A client that takes nothing for `send_timeout` is dropped.

        Raises OSError where the connection is gone.
        """
        transport = self.writer.transport
        while (size := transport.get_write_buffer_size()) > self.config.write_buffer:
            try:
                async with asyncio.timeout(self.config.send_timeout):
                    await self.writer.drain()
                    if transport.get_write_buffer_size() > self.config.write_buffer:
                        await asyncio.sleep(0.005)  # drain() returns early on TLS, which holds bytes of its own
            except TimeoutError:
                if transport.get_write_buffer_size() >= size:
                    self.stalled = True
                    drop(self)
                    raise ConnectionAbortedError from None

    @property
    def _half_read(self) -> bool:
        """Whether the client may still be sending, and not have read our answer."""
        protocol: Any = self.protocol.protocol
        return protocol.half_read and not self.writer.transport.is_closing()

    def _linger(self) -> None:
        """Stop sending, and throw away what still comes, up to `_LINGER` bytes and for `close_timeout`; then close.

        To close while the client sends would make the kernel reset the connection, and the reset may overtake our answer
        (RFC 9112, 9.6).
        """
        if self._lingers_for is not None:
            return
        self._lingers_for = _LINGER
        with contextlib.suppress(NotImplementedError, OSError, RuntimeError):  # TLS has no such end
            self.writer.write_eof()
        self.loop.call_later(self.config.close_timeout, self.reader.feed_eof)

    async def _idle_timeout(self) -> None:
        """End a connection on which no complete request has arrived for too long."""
        longest = self.config.keep_alive_timeout * random.uniform(1, 1 + _SPREAD)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.context.terminated.wait(), longest)
        await asyncio.shield(self._initiate_server_close())

    async def _initiate_server_close(self) -> None:
        await self.protocol.handle(Closed())
        await self._close()

    async def _close(self) -> None:
        # What it awaits swallows cancellation, so no TimeoutError is raised: ask the timeout whether it has expired.
        timeout = asyncio.timeout(self.config.close_timeout)
        with contextlib.suppress(TimeoutError, OSError):
            async with timeout:
                await super()._close()
        if timeout.expired():
            drop(self)
