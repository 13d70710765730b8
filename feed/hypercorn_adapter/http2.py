"""HTTP/2 on one connection, in place of Hypercorn's H2Protocol; every response body is written through a wire.

It does not subclass H2Protocol. Each item names what Hypercorn 0.18 does, then what happens here:
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

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import h2.events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from h2.stream import StreamState
from hypercorn.utils import filter_pseudo_headers

from feed.hypercorn_adapter.connection import drop
from feed.hypercorn_adapter.exchange import Exchange, scope_of
from feed.hypercorn_adapter.headers import Headers, dates
from feed.hypercorn_adapter.http2_cork import Cork
from feed.hypercorn_adapter.http2_frames import limited_connection
from feed.hypercorn_adapter.http2_head import send_head
from feed.hypercorn_adapter.http2_native import count_connection_natively
from feed.hypercorn_adapter.http2_uploads import Uploads
from feed.hypercorn_adapter.http2_windows import Windows
from feed.hypercorn_adapter.http2_wire import Http2Wire
from feed.limits.token_bucket import TokenBucket
from feed.wire.chunk import Chunk
from feed.wire.pacer import REQUESTS_PER_WRITE
from feed.wire.wire import Disconnected

if TYPE_CHECKING:
    from feed.hypercorn_adapter.tcp import TcpConnection

_IDLE = h2.events.RequestReceived | h2.events.StreamReset | h2.events.StreamEnded
"""After these a connection may have nothing left to do."""
_CALMED = 10
"""Resets that a request counts as if it comes after the ration of refusals is used up."""
_WRITABLE = frozenset({StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE})
_HELD = 64 * 1024
"""Bytes that wait to be read as frames before the socket is no longer read."""


class Http2:
    """The server's end of HTTP/2 on one connection."""

    def __init__(self, server: "TcpConnection") -> None:
        config = server.config
        self.server = server
        self.config = config
        self.closed = False
        self.half_read = False  # whether the client is in the middle of something when we close
        clients = config.h2_max_concurrent_streams if config.crowds(server.client[0]) else 1
        self.connection = limited_connection(config, clients)
        self.streams: dict[int, Exchange] = {}
        self.cork = Cork(server.door, server.transport)
        if server.door.socket is not None:
            count_connection_natively(self.connection, server.door.socket)
        self.windows = Windows()
        self._received = b""  # what has come and is not read as frames yet
        self._reading: asyncio.Task[None] | None = None  # there is one while something is left to read
        self._greedy = False  # whether the last read used up its ration, so that more frames may be waiting
        self._resets = TokenBucket(config.h2_resets * clients, config.h2_reset_rate * clients)
        self._uploads = Uploads(self.connection, self.cork, config.send_timeout, self._maybe_idle)

    @property
    def idle(self) -> bool:
        """Whether no request is being answered and none is coming."""
        return not self.streams and not self._uploads

    # What the connection calls.

    def initiate(self, headers: Headers | None = None, settings: bytes | None = None) -> None:
        """Begin. `headers` and `settings` are given if an HTTP/1.1 request asked to upgrade to HTTP/2 (h2c)."""
        try:
            if settings is None:
                self.connection.initiate_connection()
            else:
                self.connection.initiate_upgrade_connection(settings)
            self._put_pending()
            if headers is not None:
                self._begin(h2.events.RequestReceived(stream_id=1, headers=headers))
                self.streams[1].take_end()
        except (KeyError, ProtocolError):  # that request was refused
            self._give_up()

    def data_received(self, data: bytes) -> None:
        """Take what has come: a task reads it as frames."""
        if self.closed:
            return
        self._received += data
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read())
        elif len(self._received) > _HELD:
            self.server.transport.pause_reading()

    def connection_lost(self) -> None:
        """End every stream: the client is gone."""
        self._end()

    def closing(self) -> None:
        """Read no more."""
        self._end()

    def stop(self) -> None:
        """Do nothing: the responses under way go on, and the last of them ends the connection."""

    def _end(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._received = b""
        self.cork.close()
        self._uploads.close()
        self.connection.let_go()
        for stream_id in list(self.streams):
            self._close_stream(stream_id)

    async def _read(self) -> None:
        try:
            while self._received and not self.closed:
                data, self._received = self._received, b""
                if len(data) > _HELD:
                    self.server.transport.resume_reading()
                await self._take(data)
        except ProtocolError:
            self._give_up()
        except OSError:
            self._end()
        finally:
            self._reading = None

    async def _take(self, data: bytes) -> None:
        """Read frames, a ration at a time; a client that sends more than one ration waits for the other clients."""
        while not self.closed:
            if self._greedy:
                await self.config.frames.admitted()
                if self.server.ended:
                    drop(self.server)
                    self._end()
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
                    if self.closed or self.server.ended:
                        return  # the client is gone: the rest need not begin
                begun += 1
            self._handle_event(event)
            if self.closed:
                return
            await self._flush()
            if isinstance(event, _IDLE):
                self._maybe_idle()  # the request was refused, or was the last one
        await self._flush()

    def _handle_event(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._request(event)
        elif isinstance(event, h2.events.DataReceived):
            self._data(event)
        elif isinstance(event, h2.events.StreamEnded):
            self._uploads.end(event.stream_id)
            if event.stream_id in self.streams:
                self.streams[event.stream_id].take_end()
        elif isinstance(event, h2.events.StreamReset):
            self._count_reset()
            self._uploads.end(event.stream_id)
            self._close_stream(event.stream_id)
        elif isinstance(event, h2.events.WindowUpdated):
            self.windows.opened(event.stream_id or 0)
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            if SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
                self.windows.opened(0)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._end()
            self.server.close()

    def _request(self, event: h2.events.RequestReceived) -> None:
        if self.server.terminated:
            self.connection.reset_stream(event.stream_id)
            self.connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 0})
        else:
            self._begin(event)
            self.server.not_idle()

    def _data(self, event: h2.events.DataReceived) -> None:
        stream_id, size, data = event.stream_id, event.flow_controlled_length or 0, event.data or b""
        exchange = self.streams.get(stream_id)
        if exchange is None:
            self._uploads.throw_away(stream_id, size)
            return
        if size > len(data):  # padding
            self.connection.acknowledge_received_data(size - len(data), stream_id)
        if data:
            exchange.take_body(data)

    def _begin(self, request: h2.events.RequestReceived) -> None:
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
        server = self.server
        headers = filter_pseudo_headers(request.headers)
        scope = scope_of(method.decode().upper(), path, headers, "2", server, server.parts.state)
        self.streams[stream_id] = exchange = Exchange(self, stream_id, scope, Http2Wire(self, stream_id))
        exchange.begin(server.parts.app, paced=False)

    def _refuse(self, stream_id: int, code: ErrorCodes, count: int = 1) -> None:
        self.connection.reset_stream(stream_id, code)
        self._count_reset(count)

    def _count_reset(self, count: int = 1) -> None:
        """Count resets against a bucket that fills with time; raises ProtocolError where it is empty."""
        if not self._resets.take(count):
            self.connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            raise ProtocolError

    # What an exchange calls; after the end of its stream or of the connection these do nothing.

    def send_head(self, exchange: Exchange, status: int, headers: Headers) -> None:
        """Write the head of the response."""
        headers.append((b"date", dates.now()))
        with suppress(ProtocolError, KeyError):  # the stream is over
            head = send_head(self.connection, exchange.stream_id, status, headers)
            self._put_pending()
            if head:
                self.cork.put(head)

    async def send_body(self, exchange: Exchange, data: bytes) -> None:
        """Write a piece of the body as the client opens its windows."""
        if exchange.method == "HEAD":
            return
        with suppress(ProtocolError, Disconnected):
            await exchange.wire.send(Chunk(data))

    def send_end(self, exchange: Exchange) -> None:
        """Write END_STREAM."""
        if self._state(exchange.stream_id) in _WRITABLE:
            with suppress(ProtocolError):  # the connection is over
                self.connection.end_stream(exchange.stream_id)
                self._put_pending()

    def consumed(self, exchange: Exchange, size: int) -> None:
        """Open the client's windows by as much."""
        if size and not self.closed:
            with suppress(ProtocolError):
                self.connection.acknowledge_received_data(size, exchange.stream_id)
                self._put_pending()

    def exchange_over(self, exchange: Exchange) -> None:
        """An exchange is over. Reset the stream if the response is incomplete; let an unfinished upload continue."""
        stream_id = exchange.stream_id
        if self.streams.get(stream_id) is exchange:
            state = self._state(stream_id)
            with suppress(ProtocolError):
                if state in _WRITABLE:
                    self.connection.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
                elif state is StreamState.HALF_CLOSED_LOCAL and not self.closed:
                    self._uploads.begin(stream_id)
            self._close_stream(stream_id)
        if self.closed:
            return
        if not self.streams and self.server.terminated:
            with suppress(ProtocolError):
                self.connection.close_connection()
            # What the client still says (windows, acknowledgements) is read, since a reset could overtake the response. TLS
            # cannot tell it that nothing more comes, and would leave it waiting.
            self.half_read = self.server.scheme == "http"
        self._put_pending()
        self._maybe_idle()

    def _put_pending(self) -> None:
        """Write h2's pending bytes at the end of this turn of the event loop."""
        if data := self.connection.data_to_send():
            self.cork.put(data)

    async def _flush(self) -> None:
        """Write h2's pending bytes, and wait if the transport holds too much; raises OSError where the client is gone."""
        self._put_pending()
        if self.server.transport.get_write_buffer_size() > self.config.write_buffer:
            await self.server.drained()

    def _give_up(self) -> None:
        """End the connection after a GOAWAY, and let the client read it."""
        self._put_pending()
        self._end()
        self.half_read = True
        self.server.close()

    def _close_stream(self, stream_id: int) -> None:
        exchange = self.streams.pop(stream_id, None)
        if exchange is not None:
            exchange.client_gone()
        self.windows.wake(stream_id)

    def _state(self, stream_id: int) -> StreamState | None:
        stream = self.connection.streams.get(stream_id)
        return None if stream is None else stream.state_machine.state

    def _maybe_idle(self) -> None:
        if self.idle and not self.closed:
            self.server.idle()
