"""Uploads that go on behind their answer: read and thrown away, but not without bounds.

A client that is reset in the middle of an upload may not read the answer that came before (httpx does not).
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from feed.hypercorn_adapter.http2_cork import Cork
from feed.hypercorn_adapter.http2_frames import Limited

_MOST = 64 * 1024 * 1024
"""Bytes of a request that a client may send behind its answer."""


class Uploads:
    """The streams of one connection that are answered and whose request has no end yet. Each has `longest` seconds.

    `ended` is told of each that ran out of time; the connection may then have nothing left to do.
    """

    def __init__(self, connection: Limited, cork: Cork, longest: float, ended: Callable[[], None]) -> None:
        self._connection = connection
        self._cork = cork
        self._longest = longest
        self._ended: Callable[[], None] | None = ended
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._taken: dict[int, int] = {}  # bytes, by stream

    def __len__(self) -> int:
        return len(self._taken)

    def begin(self, stream_id: int) -> None:
        """A stream was answered before its request had ended."""
        self._taken[stream_id] = 0
        self._timers[stream_id] = asyncio.get_running_loop().call_later(self._longest, self._expire, stream_id)

    def throw_away(self, stream_id: int, size: int) -> None:
        """Let the client send on after `size` bytes of DATA that nobody reads."""
        if size:
            self._connection.acknowledge_received_data(size, stream_id)
        if stream_id not in self._taken:
            return
        self._taken[stream_id] += size
        if self._taken[stream_id] > _MOST:
            self.end(stream_id)
            self._connection.reset_stream(stream_id, ErrorCodes.NO_ERROR)

    def end(self, stream_id: int) -> bool:
        """A request has ended, or was reset; whether it was one of these."""
        if self._taken.pop(stream_id, None) is None:
            return False
        self._timers.pop(stream_id).cancel()
        return True

    def close(self) -> None:
        """Forget all of them: the connection is over."""
        self._ended = None
        for stream_id in list(self._taken):
            self.end(stream_id)

    def _expire(self, stream_id: int) -> None:
        self.end(stream_id)
        with suppress(ProtocolError):
            self._connection.reset_stream(stream_id, ErrorCodes.NO_ERROR)
            self._cork.put(self._connection.data_to_send())
        if self._ended is not None:
            self._ended()
