"""HTTP/1.1: Hypercorn's H11Protocol with a wire for each response.

What it replaces (Hypercorn 0.18):
- `_create_stream`, to name the class of the exchange. Upgrades to WebSocket are ignored, as RFC 9110, 7.8 allows: there is
  none here. Body bytes go past h11, whose chunked writer keeps no state between chunks; it writes the head before and the
  last chunk after.
- h11 reads heads that other parsers may understand differently (http1_head.py).
- An answer that did not need the whole request says `Connection: close`, and the connection lingers (tcp.py).
- A request behind one that is not answered yet stops all reading: that the client left is then never noticed. Here it waits
  in h11's buffer, within the bound that h11 has for a head.
"""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import h11
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Request, Response
from hypercorn.protocol.h11 import STREAM_ID, H2CProtocolRequiredError, H2ProtocolAssumedError, H11Protocol

from feed.hypercorn_adapter.config import WireConfig
from feed.hypercorn_adapter.connection import drop, server_of
from feed.hypercorn_adapter.exchange import Exchange
from feed.hypercorn_adapter.http1_head import be_strict
from feed.hypercorn_adapter.server_wire import ServerWire
from feed.wire.chunk import Chunk

if TYPE_CHECKING:
    from feed.wire.native._batch import Member


class _Paused(Exception):
    """A request waits for the answer to the one before it."""


class _NeverReadable:
    """Stands in the place of Hypercorn's event `can_read`. Whoever would wait for it goes back to reading instead."""

    async def clear(self) -> None:
        """Do nothing: it is never set."""

    async def set(self) -> None:
        """Do nothing: it is never set."""

    def is_set(self) -> bool:
        """Return False."""
        return False

    async def wait(self) -> None:
        """Raise _Paused, so that the connection is read on."""
        raise _Paused


class Http1(H11Protocol):
    """The server's end of HTTP/1.1 on one connection."""

    config: WireConfig

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        be_strict(cast(h11.Connection, self.connection))
        self.can_read = _NeverReadable()
        self._parsing = asyncio.Lock()  # by whoever reads, or by whoever has just answered

    @property
    def half_read(self) -> bool:
        """Whether the client is in the middle of a request: it may be sending more, and has not read our answer."""
        return self.connection.their_state in {h11.SEND_BODY, h11.ERROR}

    async def stream_send(self, event: StreamEvent) -> None:
        """Do what an exchange wants. A request that is answered before its end has been read is the connection's last."""
        if isinstance(event, Response) and event.status_code >= 200 and self.connection.their_state is h11.SEND_BODY:
            event = replace(event, headers=[*event.headers, (b"connection", b"close")])
        await super().stream_send(event)

    async def handle(self, event: Event) -> None:
        """Handle bytes that have come, or the end of the connection."""
        if not isinstance(event, RawData):
            await super().handle(event)
            return
        async with self._parsing:
            try:
                await super().handle(event)
            except _Paused:
                if len(self.connection.trailing_data[0]) > self.config.h11_max_incomplete_size:
                    await self.send(Closed())

    async def _maybe_recycle(self) -> None:
        await super()._maybe_recycle()
        if self.connection.our_state is not h11.IDLE or not self.connection.trailing_data[0]:
            return
        async with self._parsing:
            try:
                if self.connection.our_state is h11.IDLE:
                    await self._handle_events()
            except _Paused:
                pass
            except (H2CProtocolRequiredError, H2ProtocolAssumedError):
                await self.send(Closed())  # to change the protocol it must come first

    async def _create_stream(self, request: h11.Request) -> None:
        await self.config.begin.admitted()
        server = server_of(self)
        if server.ended:
            return
        if server.rations.used_up():
            if not self.config.is_stream(request.target):  # to an EventSource a 429 means that it must never come back
                await self._send_error_response(429)
            await self.send(Closed())
            return
        self.stream = exchange = Exchange(
            self.app, self.config, self.context, self.task_group, self.ssl, self.client, self.server, self.stream_send,
            STREAM_ID,
        )  # fmt: skip
        exchange.rations = server.rations
        if request.method == b"GET":
            exchange.wire = Http1Wire(server, chunked=request.http_version >= b"1.1")
        await exchange.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()


class Http1Wire(ServerWire):
    """The body of a response: in chunks, or for HTTP/1.0 as plain bytes until the end of the connection."""

    __slots__ = ("_chunked",)

    def __init__(self, server: object, *, chunked: bool) -> None:
        super().__init__(server)
        self._chunked = chunked

    def write(self, chunk: Chunk) -> bool:
        """Hand a chunk to the transport now; return False where it holds too much already."""
        if self.closed or self._get_size() > self._limit or self._is_closing():
            return False
        self._put(chunk.chunked if self._chunked else chunk.body)
        return True

    async def send(self, chunk: Chunk) -> None:
        """Hand a chunk over when the transport has room for it; raises Disconnected."""
        await self._writable()
        self._put(self._framed(chunk))

    def _framed(self, chunk: Chunk) -> bytes:
        return chunk.chunked if self._chunked else chunk.body

    def _new_member(self) -> "Member | None":
        return self._server.config.native.Member(self._server.door.socket, 0) if self._chunked else None

    def reset(self) -> None:
        """Reset the connection: it carries no response but this one."""
        drop(self._server)

    def cut(self) -> None:
        """Do the same: where the client takes nothing there is nothing else to save."""
        self.reset()
