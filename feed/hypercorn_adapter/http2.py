"""HTTP/2: Hypercorn's H2Protocol without its send task, stream buffers and priority tree; every body goes by wire.

What it replaces, and why (Hypercorn 0.18). When upstream is repaired, `send_task`, `stream_send`, `_window_updated` and
`_close_stream` can go; bodies that are no streams then go through Hypercorn again:
- `StreamBuffer` resumes its writer on what was taken instead of what is left: a client that opens no window makes the
  server hold everything that it was to be sent. Here whoever writes waits for the window.
- A stream that the client resets leaves its buffer and its node in the priority tree; at 1,001 the connection dies.
- Closing some EventSources of Chromium lets a `PriorityLoop` escape and kills the others. RFC 9113, 5.3 deprecates
  priorities: the frames are ignored, streams of one connection take turns as they are written.
- END_STREAM is written by the send task, after a GOAWAY if the process is ending (hypercorn #226). Here it is written
  when the response ends.
- An application that fails in mid-stream leaves the stream open. Here it is reset with INTERNAL_ERROR.
- `keep_alive_max_requests` was the defence against rapid resets and sends GOAWAY at 1,000 requests, after which an
  EventSource waits for ever. Here the resets are what is counted.
- Streams over the limit end the connection; a client may send some before it knows the limit (hypercorn #335). Here they
  are refused one by one. A frame that is too long is refused when it is announced, not when it has come.
- A request without `:path`, with bytes beyond ASCII, or DATA for a stream that is gone, ends in a traceback.
- All that has come is read in one go, whatever it is. Here it has bounds (http2_frames.py).
"""

import asyncio
from contextlib import suppress
from typing import Any

import h2.events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.stream import StreamState
from hypercorn.events import Closed, RawData, Updated
from hypercorn.events import Event as ServerEvent
from hypercorn.protocol.events import Body, Data, EndBody, EndData, Event, Request, StreamClosed, Trailers
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.utils import filter_pseudo_headers

from feed.hypercorn_adapter.config import WireConfig
from feed.hypercorn_adapter.connection import drop, server_of
from feed.hypercorn_adapter.exchange import Exchange
from feed.hypercorn_adapter.http2_frames import Limited, limit
from feed.hypercorn_adapter.http2_wire import Http2Wire
from feed.limits.token_bucket import Bucket
from feed.wire.chunk import Chunk
from feed.wire.pacer import TOGETHER
from feed.wire.wire import Disconnected

_UNREAD = 64 * 1024 * 1024
"""Bytes of a request that a client may send behind its answer."""
_IDLE = h2.events.RequestReceived | h2.events.StreamReset | h2.events.StreamEnded
"""After these a connection may have nothing left to do."""
_CALMED = 10
"""Resets as which a stream counts that is asked for although the ration of refusals is used up."""
_CORK = 16 * 1024
"""Bytes that make one write of what is pushed."""


class Http2(H2Protocol):
    """HTTP/2 on one connection."""

    config: WireConfig
    connection: Limited
    streams: dict[int, Exchange]  # type: ignore[assignment]

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        clients = self.config.h2_max_concurrent_streams if self.client and self.config.crowds(self.client[0]) else 1
        limit(self.connection, self.config.h2_control_rate * clients, self.config.header_bytes)
        self.half_read = False  # whether the client is in the middle of something when we close
        self._greedy = False  # whether it had sent more than a ration when it was last looked at
        self._waiting: dict[int, asyncio.Future[None]] = {}  # for a window, by stream
        self.corked: list[bytes] = []  # pushed in this turn of the event loop; the transport does not have it yet
        self._corked_size = 0
        self._resets = Bucket(self.config.h2_resets * clients, self.config.h2_reset_rate * clients)
        self._unended: dict[int, int] = {}  # bytes behind the answer, of streams whose request has no end yet

    async def initiate(self, headers: list[tuple[bytes, bytes]] | None = None, settings: bytes | None = None) -> None:
        """Begin; with headers it is an upgraded request that comes first."""
        try:
            await super().initiate(headers, settings)
        except (KeyError, ProtocolError):  # which was refused
            await self._give_up()

    def cork(self, frame: bytes) -> None:
        """Keep a frame until the end of this turn: what is pushed to all streams of a connection leaves as one write."""
        if not self.corked:
            self.task_group._loop.call_soon(self.uncork)  # type: ignore[attr-defined]
        self.corked.append(frame)
        self._corked_size += len(frame)
        if self._corked_size > _CORK:
            self.uncork()

    def uncork(self) -> None:
        """Hand over what was kept, before anything else is written."""
        if frames := vars(self).get("corked"):  # nothing is left of a connection that has ended
            self.corked, self._corked_size = [], 0
            transport = server_of(self).writer.transport
            if not self.closed and not transport.is_closing():
                transport.write(b"".join(frames))

    async def _flush(self) -> None:
        """Let what h2 has to say leave with the rest of this turn; who asks for too much of it waits."""
        if data := self.connection.data_to_send():
            self.cork(data)
        try:
            await server_of(self).drained()
        except OSError:
            await super().handle(Closed())

    async def send_task(self) -> None:
        """Nothing: there are no buffers to empty. Spawned by `initiate`, it ends at once."""

    async def handle(self, event: ServerEvent) -> None:
        """Take bytes, or the end of the connection."""
        if not isinstance(event, RawData):
            self.uncork()
            await super().handle(event)
            return
        try:
            await self._take(event.data)
        except ProtocolError:
            await self._give_up()

    async def _take(self, data: bytes) -> None:
        """Read frames, a ration at a time; who sends more than one waits for those who do not."""
        while not self.closed:
            if self._greedy:
                await self.config.frames.next()
                if server_of(self).ended:
                    drop(server_of(self))
                    await self.handle(Closed())
                    return
            events, self._greedy = self.connection.receive_some(data)
            await self._handle_events(events)
            if not self._greedy:
                self._look_ahead()
                return
            data = b""

    def _look_ahead(self) -> None:
        """Refuse a frame that is announced too long now, and not when it has come."""
        pending = self.connection.incoming_buffer._data
        if len(pending) >= 9 and int.from_bytes(pending[:3], "big") > self.connection.max_inbound_frame_size:
            self.connection.close_connection(ErrorCodes.FRAME_SIZE_ERROR)
            raise ProtocolError

    async def _give_up(self) -> None:
        """End the connection, in a way that lets the client read why."""
        await self._flush()
        await self.handle(Closed())
        self.half_read = True
        await self.send(Closed())

    async def stream_send(self, event: Event) -> None:
        """Do what an exchange wants."""
        if isinstance(event, Body | Data):
            if (exchange := self.streams.get(event.stream_id)) is not None and exchange.wire is not None:
                try:
                    await exchange.wire.send(Chunk(event.data))
                except Disconnected:
                    return
        elif isinstance(event, EndBody | EndData | Trailers):
            if self._open(event.stream_id):
                with suppress(ProtocolError):  # the connection is over
                    if isinstance(event, Trailers):
                        self.connection.send_headers(event.stream_id, event.headers, end_stream=True)
                    else:
                        self.connection.end_stream(event.stream_id)
                await self._flush()
        else:
            if isinstance(event, StreamClosed) and event.stream_id in self.streams:
                with suppress(ProtocolError):
                    await self._abandon(event.stream_id)
            await super().stream_send(event)
            if isinstance(event, StreamClosed) and self._unended:
                await self.send(Updated(idle=False))  # an upload goes on

    async def window(self, stream_id: int) -> None:
        """Wait until the client opens the window of a stream, or of all."""
        waiting = self._waiting[stream_id] = asyncio.get_running_loop().create_future()
        try:
            await waiting
        finally:
            self._waiting.pop(stream_id, None)

    async def _create_stream(self, request: h2.events.RequestReceived) -> None:
        stream_id = request.stream_id
        if stream_id not in self.connection.streams:
            return  # the client has reset it since
        fields = dict(request.headers[:5])  # no more than five can be pseudo-headers, and they come first
        method, path = fields.get(b":method", b""), fields.get(b":path", b"")
        server = server_of(self)
        if server.rations.used_up():
            self.connection.reset_stream(stream_id, ErrorCodes.ENHANCE_YOUR_CALM)
            self._count_reset(_CALMED)
            return
        if len(self.streams) + len(self._unended) >= self.config.h2_max_concurrent_streams:
            self.connection.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            self._count_reset()
            return
        if not (method.isascii() and path.startswith((b"/", b"*")) and path.isascii()):
            self.connection.reset_stream(stream_id, ErrorCodes.PROTOCOL_ERROR)
            self._count_reset()
            return
        exchange = Exchange(
            self.app, self.config, self.context, self.task_group, self.ssl, self.client, self.server, self.stream_send,
            stream_id,
        )  # fmt: skip
        self.streams[stream_id] = exchange
        exchange.wire = Http2Wire(self, stream_id)
        exchange.rations = server.rations
        await exchange.handle(
            Request(
                stream_id=stream_id,
                headers=filter_pseudo_headers(request.headers),
                http_version="2",
                method=method.decode().upper(),
                raw_path=path,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        requests = [event for event in events if isinstance(event, h2.events.RequestReceived)]
        begun = 0
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                if begun % TOGETHER == 0:
                    await self.config.begin.next(min(TOGETHER, len(requests) - begun))
                begun += 1
                if self.closed or server_of(self).ended:
                    return  # what a client wanted that is gone need not be begun
            if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                await self._throw_away(event)
                continue
            if isinstance(event, h2.events.StreamReset):
                self._count_reset()
            if isinstance(event, h2.events.StreamReset | h2.events.StreamEnded):
                self._unended.pop(event.stream_id, None)
            if isinstance(event, h2.events.ConnectionTerminated):
                await self.handle(Closed())
            await super()._handle_events([event])
            if isinstance(event, _IDLE) and self.idle and not self._unended and not self.closed:
                await self.send(Updated(idle=True))  # the request was refused, or was the last one
        await self._flush()

    async def _throw_away(self, event: h2.events.DataReceived) -> None:
        """The response was sent before the request had ended, which may take a while, but not for ever."""
        stream_id, size = event.stream_id, event.flow_controlled_length or 0
        if size:
            self.connection.acknowledge_received_data(size, stream_id)
        if stream_id in self._unended:
            self._unended[stream_id] += size
            if self._unended[stream_id] > _UNREAD:
                del self._unended[stream_id]
                self.connection.reset_stream(stream_id, ErrorCodes.NO_ERROR)

    def _count_reset(self, count: int = 1) -> None:
        """Count resets against a bucket that fills with time; raises ProtocolError where it is empty."""
        if not self._resets.take(count):
            self.connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            raise ProtocolError

    def wake(self, stream_id: int) -> None:
        """End the wait for a window."""
        waiting = self._waiting.get(stream_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    async def _window_updated(self, stream_id: int | None) -> None:
        for one in [stream_id] if stream_id else list(self._waiting):
            self.wake(one)

    async def _priority_updated(self, event: h2.events.PriorityUpdated) -> None:
        """Ignore it."""

    async def _close_stream(self, stream_id: int) -> None:
        await super()._close_stream(stream_id)
        self.wake(stream_id)

    async def _abandon(self, stream_id: int) -> None:
        """Reset a stream whose response has no end.

        A request without one is taken to its end and thrown away: clients that are reset in the middle of an upload (httpx)
        do not read the answer that came before.
        """
        stream = self.connection.streams.get(stream_id)
        state = None if stream is None else stream.state_machine.state
        if state in {StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE}:
            self.connection.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
            await self._flush()
        elif state is StreamState.HALF_CLOSED_LOCAL:
            self._unended[stream_id] = 0
            asyncio.get_running_loop().call_later(self.config.send_timeout, self._end_unended, stream_id)

    def _end_unended(self, stream_id: int) -> None:
        """An upload that nobody reads has taken long enough: without it the connection may be idle, and end."""
        if vars(self).get("closed", True) or self._unended.pop(stream_id, None) is None:
            return
        with suppress(ProtocolError):
            self.connection.reset_stream(stream_id, ErrorCodes.NO_ERROR)
            self.cork(self.connection.data_to_send())
        if self.idle and not self._unended:
            self.task_group.spawn(self.send, Updated(idle=True))

    def _open(self, stream_id: int) -> bool:
        stream = self.connection.streams.get(stream_id)
        return stream is not None and stream.state_machine.state in {StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE}
