"""HTTP/2 on one connection, in place of Hypercorn's H2Protocol; every response body is written through a wire.

It does not subclass H2Protocol; it has what Hypercorn's ProtocolWrapper calls: the constructor, `initiate` and `handle`.
Each item names what Hypercorn 0.18 does, then what happens here:
- `StreamBuffer` resumes its writer by the bytes taken instead of the bytes left, so for a client that opens no window the
  server buffers the whole response. Here the writer waits for the window.
- A stream that the client resets leaves its buffer and its node in the priority tree; at 1,001 the connection dies. Here
  there is no tree.
- When Chromium closes some EventSources, a `PriorityLoop` exception escapes and ends the others. RFC 9113, 5.3 deprecates
  priorities: here the frames are ignored, and the streams of a connection take turns.
- END_STREAM is written by a separate task, after GOAWAY if the process is stopping (hypercorn #226). Here it is written
  when the response ends.
- An application that fails in mid-stream leaves the stream open. Here it is reset with INTERNAL_ERROR.
- `keep_alive_max_requests`, a defence against rapid resets, sends GOAWAY at 1,000 requests, and an EventSource then waits
  forever. Here resets are counted instead.
- Streams over the limit end the connection, although a client may open some before it knows the limit (hypercorn #335).
  Here they are refused one by one. A frame that is too long is refused when its header arrives, not after its payload.
- A request without `:path` or with non-ASCII bytes, and DATA for a stream that has ended, cause a traceback. Here the
  first is reset and the second is discarded.
- All received bytes are processed at once. Here there are bounds (http2_frames.py).
- Here there is no WebSocket and no server push.
"""

from contextlib import suppress
from typing import Any

import h2.events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from h2.stream import StreamState
from hypercorn.events import Closed, RawData, Updated
from hypercorn.events import Event as ServerEvent
from hypercorn.protocol.events import (
    Body,
    Data,
    EndBody,
    EndData,
    Event,
    InformationalResponse,
    Request,
    Response,
    StreamClosed,
    Trailers,
)
from hypercorn.utils import filter_pseudo_headers

from feed.hypercorn_adapter.config import WireConfig
from feed.hypercorn_adapter.connection import drop, server_of
from feed.hypercorn_adapter.exchange import Exchange
from feed.hypercorn_adapter.http2_cork import Cork
from feed.hypercorn_adapter.http2_frames import limited_connection
from feed.hypercorn_adapter.http2_native import count_connection_natively
from feed.hypercorn_adapter.http2_uploads import Uploads
from feed.hypercorn_adapter.http2_windows import Windows
from feed.hypercorn_adapter.http2_wire import Http2Wire
from feed.limits.token_bucket import TokenBucket
from feed.wire.chunk import Chunk
from feed.wire.pacer import REQUESTS_PER_WRITE
from feed.wire.wire import Disconnected

_IDLE = h2.events.RequestReceived | h2.events.StreamReset | h2.events.StreamEnded
"""After these a connection may have nothing left to do."""
_CALMED = 10
"""Resets that a request counts as if it comes after the ration of refusals is used up."""
_WRITABLE = frozenset({StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE})


class Http2:
    """The server's end of HTTP/2 on one connection."""

    def __init__(
        self, app: Any, config: WireConfig, context: Any, task_group: Any, connection_state: Any, ssl: bool,
        client: tuple[str, int] | None, server: tuple[str, int] | None, send: Any,
    ) -> None:  # fmt: skip
        self.config = config
        self.context = context
        self.task_group = task_group
        self.connection_state = connection_state
        self.send = send
        self.closed = False
        self.half_read = False  # whether the client is in the middle of something when we close
        self._for_exchange = app, config, context, task_group, ssl, client, server
        clients = config.h2_max_concurrent_streams if client and config.crowds(client[0]) else 1
        self.connection = limited_connection(config, clients)
        self.streams: dict[int, Exchange] = {}
        self.server = server_of(self)  # the connection under this protocol (tcp.py)
        door = self.server.door
        self.cork = Cork(door, self.server.writer.transport)
        if door.socket is not None:
            count_connection_natively(self.connection, door.socket)
        self._greedy = False  # whether the last read used up its ration, so that more frames may be waiting
        self.windows = Windows()
        self._resets = TokenBucket(config.h2_resets * clients, config.h2_reset_rate * clients)
        self._uploads = Uploads(self.connection, self.cork, config.send_timeout, self._idle_in_a_task)

    @property
    def idle(self) -> bool:
        """Whether no request is being answered and none is coming."""
        return not self.streams and not self._uploads

    async def initiate(self, headers: list[tuple[bytes, bytes]] | None = None, settings: bytes | None = None) -> None:
        """Begin. `headers` and `settings` are given if an HTTP/1.1 request asked to upgrade to HTTP/2 (h2c)."""
        try:
            if settings is None:
                self.connection.initiate_connection()
            else:
                self.connection.initiate_upgrade_connection(settings)
            await self._flush()
            if headers is not None:
                await self._begin(h2.events.RequestReceived(stream_id=1, headers=headers))
                await self.streams[1].handle(EndBody(stream_id=1))
        except (KeyError, ProtocolError):  # that request was refused
            await self._give_up()

    async def handle(self, event: ServerEvent) -> None:
        """Handle bytes that have come, or the end of the connection."""
        if isinstance(event, RawData):
            try:
                await self._take(event.data)
            except ProtocolError:
                await self._give_up()
        elif isinstance(event, Closed):
            self.closed = True
            self.cork.close()
            self._uploads.close()
            self.connection.let_go()
            for stream_id in list(self.streams):
                await self._close_stream(stream_id)

    async def _take(self, data: bytes) -> None:
        """Read frames, a ration at a time; a client that sends more than one ration waits for the other clients."""
        while not self.closed:
            if self._greedy:
                await self.config.frames.admitted()
                if self.server.ended:
                    drop(self.server)
                    await self.handle(Closed())
                    return
            events, self._greedy = self.connection.receive_some(data)
            await self._handle_events(events)
            if not self._greedy:
                self.connection.look_ahead()
                return
            data = b""

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        requests = sum(isinstance(event, h2.events.RequestReceived) for event in events)
        begun = 0
        for event in events:
            if isinstance(event, h2.events.RequestReceived):
                if begun % REQUESTS_PER_WRITE == 0:
                    await self.config.begin.admitted(min(REQUESTS_PER_WRITE, requests - begun))
                begun += 1
                if self.closed or self.server.ended:
                    return  # the client is gone: the rest need not begin
            await self._handle_event(event)
            await self._flush()
            if isinstance(event, _IDLE) and self.idle and not self.closed:
                await self.send(Updated(idle=True))  # the request was refused, or was the last one
        await self._flush()

    async def _handle_event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            await self._request(event)
        elif isinstance(event, h2.events.DataReceived):
            await self._data(event)
        elif isinstance(event, h2.events.StreamEnded):
            self._uploads.end(event.stream_id)
            if event.stream_id in self.streams:
                await self.streams[event.stream_id].handle(EndBody(stream_id=event.stream_id))
        elif isinstance(event, h2.events.StreamReset):
            self._count_reset()
            self._uploads.end(event.stream_id)
            await self._close_stream(event.stream_id)
        elif isinstance(event, h2.events.WindowUpdated):
            self.windows.opened(event.stream_id or 0)
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            if SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
                self.windows.opened(0)
        elif isinstance(event, h2.events.ConnectionTerminated):
            await self.handle(Closed())
            await self.send(Closed())

    async def _request(self, event: h2.events.RequestReceived) -> None:
        if self.context.terminated.is_set():
            self.connection.reset_stream(event.stream_id)
            self.connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 0})
        else:
            await self._begin(event)
            await self.send(Updated(idle=False))

    async def _data(self, event: h2.events.DataReceived) -> None:
        stream_id, size = event.stream_id, event.flow_controlled_length or 0
        exchange = self.streams.get(stream_id)
        if exchange is None:
            self._uploads.throw_away(stream_id, size)
        else:
            await exchange.handle(Body(stream_id=stream_id, data=event.data or b""))
            self.connection.acknowledge_received_data(size, stream_id)

    async def _begin(self, request: h2.events.RequestReceived) -> None:
        """Begin an exchange, or reset its stream; raises ProtocolError if too many streams of this client were reset."""
        stream_id = request.stream_id
        if stream_id not in self.connection.streams:
            return  # the client has reset it since
        fields = dict(request.headers[:5])  # no more than five can be pseudo-headers, and they come first
        method, path = fields.get(b":method", b""), fields.get(b":path", b"")
        if self.server.rations.used_up():
            self._refuse(stream_id, ErrorCodes.ENHANCE_YOUR_CALM, _CALMED)
            return
        if len(self.streams) + len(self._uploads) >= self.config.h2_max_concurrent_streams:
            self._refuse(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        if not (method.isascii() and path.startswith((b"/", b"*")) and path.isascii()):
            self._refuse(stream_id, ErrorCodes.PROTOCOL_ERROR)
            return
        self.streams[stream_id] = exchange = Exchange(*self._for_exchange, self.stream_send, stream_id)
        exchange.wire = Http2Wire(self, stream_id)
        exchange.rations = self.server.rations
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
        await self.context.mark_request()

    def _refuse(self, stream_id: int, code: ErrorCodes, count: int = 1) -> None:
        self.connection.reset_stream(stream_id, code)
        self._count_reset(count)

    def _count_reset(self, count: int = 1) -> None:
        """Count resets against a bucket that fills with time; raises ProtocolError where it is empty."""
        if not self._resets.take(count):
            self.connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            raise ProtocolError

    async def stream_send(self, event: Event) -> None:
        """Send what an exchange has to send; after the end of its stream or of the connection, do nothing."""
        exchange = self.streams.get(event.stream_id)
        with suppress(ProtocolError, Disconnected):
            if isinstance(event, Response | InformationalResponse):
                status = [(b":status", b"%d" % event.status_code)]
                self.connection.send_headers(
                    event.stream_id, status + event.headers + self.config.response_headers("h2")
                )
                await self._flush()
            elif isinstance(event, Body | Data):
                if exchange is not None and exchange.wire is not None:
                    await exchange.wire.send(Chunk(event.data))
            elif isinstance(event, EndBody | EndData | Trailers):
                await self._end(event)
            elif isinstance(event, StreamClosed):
                await self._exchange_over(event.stream_id)

    async def _end(self, event: EndBody | EndData | Trailers) -> None:
        if self._state(event.stream_id) not in _WRITABLE:
            return
        with suppress(ProtocolError):  # the connection is over
            if isinstance(event, Trailers):
                self.connection.send_headers(event.stream_id, event.headers, end_stream=True)
            else:
                self.connection.end_stream(event.stream_id)
        await self._flush()

    async def _exchange_over(self, stream_id: int) -> None:
        """An exchange is over. Reset the stream if the response is incomplete; let an unfinished upload continue."""
        if stream_id in self.streams:
            state = self._state(stream_id)
            if state in _WRITABLE:
                with suppress(ProtocolError):
                    self.connection.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
                await self._flush()
            elif state is StreamState.HALF_CLOSED_LOCAL and not self.closed:
                self._uploads.begin(stream_id)
        await self._close_stream(stream_id)
        if not self.streams and self.context.terminated.is_set():
            with suppress(ProtocolError):
                self.connection.close_connection()
            await self._flush()
        await self.send(Updated(idle=self.idle))

    async def _flush(self) -> None:
        """Write h2's pending bytes at the end of this turn of the event loop; wait if the transport holds too much."""
        if data := self.connection.data_to_send():
            self.cork.put(data)
        try:
            await self.server.drained()
        except OSError:
            await self.handle(Closed())

    async def _give_up(self) -> None:
        """End the connection after a GOAWAY, and let the client read it."""
        await self._flush()
        await self.handle(Closed())
        self.half_read = True
        await self.send(Closed())

    async def _close_stream(self, stream_id: int) -> None:
        exchange = self.streams.pop(stream_id, None)
        if exchange is not None:
            await exchange.handle(StreamClosed(stream_id=stream_id))
        self.windows.wake(stream_id)

    def _state(self, stream_id: int) -> StreamState | None:
        stream = self.connection.streams.get(stream_id)
        return None if stream is None else stream.state_machine.state

    def _idle_in_a_task(self) -> None:
        if self.idle and not self.closed:
            self.task_group.spawn(self.send, Updated(idle=True))
