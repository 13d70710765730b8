"""The wire of an HTTP/2 stream: DATA frames within the client's windows."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.stream import H2Stream

from feed.hypercorn_adapter.connection import drop
from feed.hypercorn_adapter.http2_frames import EARNED, EARNED_BY, Limited
from feed.hypercorn_adapter.http2_native import count_stream_natively
from feed.hypercorn_adapter.server_wire import ServerWire
from feed.wire.chunk import Chunk

if TYPE_CHECKING:
    from feed.hypercorn_adapter.http2 import Http2
    from feed.wire.native._batch import Member

_FRAME = 16 * 1024
"""Bytes of payload that every client takes in one frame (RFC 9113, 4.2)."""
_SMALL = 4 * 1024
"""Bytes of a body that wait for others to leave with them."""
_WRITE = 64 * 1024
"""Bytes of a large body that are written at once."""


class Http2Wire(ServerWire):
    """The body of a response: DATA frames, within the windows of the stream and of the connection (RFC 9113, 5.2)."""

    __slots__ = ("_connection", "_cork", "_id", "_protocol", "_put_all", "_stream", "_stream_id", "_streams")

    def __init__(self, protocol: "Http2", stream_id: int) -> None:
        super().__init__(protocol.server)
        self._put_all = self.server.door.writelines
        self._protocol = protocol
        self._cork = protocol.cork
        self._streams = protocol.streams
        self._connection: Limited = protocol.connection
        self._stream: H2Stream = protocol.connection.streams[stream_id]
        self._stream_id = stream_id
        self._id = stream_id.to_bytes(4, "big")

    def write(self, chunk: Chunk) -> bool:
        """Hand a chunk to the transport now; return False where a window is too small, or the transport holds too much."""
        size = chunk.size
        connection, stream = self._connection, self._stream
        if (
            self.closed
            or size > stream.outbound_flow_control_window
            or size > connection.outbound_flow_control_window
            or self._get_size() > self._limit
            or self._is_closing()
        ):
            return False
        stream.outbound_flow_control_window -= size
        connection.outbound_flow_control_window -= size
        connection.credit += EARNED
        if size > _FRAME and size > connection.max_outbound_frame_size:
            self._put_frames(chunk)
        elif self._cork.frames or len(self._streams) > 1:  # nothing may overtake what is kept
            self._cork.put(self._framed(chunk))
        else:
            self._put(chunk.head + self._id + chunk.body)
        return True

    async def send(self, chunk: Chunk) -> None:
        """Hand a chunk over as the client opens its windows and takes it; raises Disconnected."""
        sent = 0
        while sent < chunk.size:
            await self._writable()
            room = min(self._stream.outbound_flow_control_window, self._connection.outbound_flow_control_window)
            if room <= 0:
                await self._window()
                continue
            size = min(room, chunk.size - sent, _WRITE)
            self._stream.outbound_flow_control_window -= size
            self._connection.outbound_flow_control_window -= size
            self._connection.credit += EARNED
            if size == chunk.size <= _SMALL:
                self._cork.put(self._framed(chunk))
            else:
                self._put_frames(chunk if size == chunk.size else Chunk(chunk.body[sent : sent + size]))
            sent += size

    async def _window(self) -> None:
        """Wait for a window. Where none opens for `send_timeout` only this stream is reset."""
        try:
            async with asyncio.timeout(self.server.config.send_timeout):
                await self._protocol.windows.wait(self._stream_id)
        except TimeoutError:
            self.gave_up = True
            self.reset()

    def _framed(self, chunk: Chunk) -> bytes:
        return chunk.head + self._id + chunk.body

    def _new_member(self) -> "Member | None":
        member: Member = self.server.config.native.Member(self.server.door.socket, self._stream_id)
        count_stream_natively(self._stream, member)
        return member

    def _put_frames(self, chunk: Chunk) -> None:
        """Write it as DATA frames no larger than the client takes."""
        self._cork.release()
        self._connection.credit += chunk.size // EARNED_BY
        parts: list[bytes | memoryview] = []
        for head, piece in chunk.frames(self._connection.max_outbound_frame_size):
            parts += (head + self._id, piece)
        self._put_all(parts)

    def cut(self) -> None:
        """Reset the stream; drop the connection where its socket is full, since not even the reset would get through."""
        if not self.closed and self._get_size() > self._limit:
            drop(self.server)
        else:
            self.reset()

    def reset(self) -> None:
        """Reset the stream alone (RST_STREAM): behind a proxy its neighbours on the connection are other people's."""
        if self.closed:
            return
        with suppress(ProtocolError):  # the client was faster
            self._connection.reset_stream(self._stream_id, ErrorCodes.ENHANCE_YOUR_CALM)
            self._cork.put(self._connection.data_to_send())
        self.close()
        self._protocol.windows.wake(self._stream_id)
