"""A wire with a queue behind it, for servers that fetch the body of a response piece by piece."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

from feed.wire.chunk import PIECE, Chunk
from feed.wire.wire import Disconnected, Wire

_WAVE = 8
"""Readers that are woken in one turn of the event loop."""


class Waves:
    """Wakes the readers of queues a few at a time: the first bytes leave while the last readers have yet to run."""

    def __init__(self) -> None:
        self._asleep: deque[QueueWire] = deque()

    @property
    def waiting(self) -> int:
        """How many readers have yet to be woken."""
        return len(self._asleep)

    def wake(self, wire: "QueueWire") -> None:
        """Wake the reader of `wire` in its turn."""
        self._asleep.append(wire)
        if len(self._asleep) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        for _ in range(min(_WAVE, len(self._asleep))):
            self._asleep.popleft().wake()
        if self._asleep:
            asyncio.get_running_loop().call_soon(self._next)


class QueueWire(Wire):
    """The body of one response as pieces to fetch.

    The queue holds at most `limit` bytes, or one chunk that is larger. `drop` drops the connection.
    """

    __slots__ = ("_chunks", "_drop", "_filled", "_finished", "_limit", "_room", "_size", "_waking", "_waves")

    direct = False

    def __init__(self, limit: int, waves: Waves, drop: Callable[[], None]) -> None:
        super().__init__()
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._limit = limit
        self._waves = waves
        self._waking = False  # its reader is about to be woken
        self._drop = drop
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._finished = False

    def write(self, chunk: Chunk) -> bool:
        """Put a chunk into the queue; returns False where it would be over the bound."""
        if self.closed or not self._fits(chunk):
            return False
        self._put(chunk)
        return True

    async def send(self, chunk: Chunk) -> None:
        """Wait until there is room for a chunk, and put it into the queue. Raises Disconnected."""
        while not self.closed and not self._fits(chunk):
            self._room.clear()
            await self._room.wait()
        if self.closed:
            raise Disconnected
        self._put(chunk)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield what is written, in pieces of at most PIECE bytes or one chunk, until `finish` or `close` is called."""
        try:
            while True:
                while self._chunks:
                    yield self._next_piece()
                if self.closed or self._finished:
                    return
                self._filled.clear()
                await self._filled.wait()
        finally:
            self.close()

    def finish(self) -> None:
        """End the body: nothing follows what is in the queue."""
        self._finished = True
        self._filled.set()

    def wake(self) -> None:
        """Wake the reader now."""
        self._waking = False
        self._filled.set()

    @property
    def stalled(self) -> bool:
        """Always False: whoever fetches the pieces notices that its client takes none, and cuts the stream."""
        return False

    def cut(self) -> None:
        """Drop the connection, and what is in the queue."""
        self.close()
        self._drop()

    def close(self) -> None:
        """End the pieces at once, and refuse what is yet to be written."""
        super().close()
        self._chunks.clear()
        self._size = 0
        self._filled.set()
        self._room.set()

    def _fits(self, chunk: Chunk) -> bool:
        return not self._size or self._size + chunk.size <= self._limit

    def _put(self, chunk: Chunk) -> None:
        self._chunks.append(chunk.body)
        self._size += chunk.size
        if not self._waking:
            self._waking = True
            self._waves.wake(self)

    def _next_piece(self) -> bytes:
        """Return the first chunks of the queue; a single one stays the object that its group shares."""
        chunks = self._chunks
        taken = [chunks.popleft()]
        size = len(taken[0])
        while chunks and size + len(chunks[0]) <= PIECE:
            size += len(chunks[0])
            taken.append(chunks.popleft())
        self._size -= size
        self._room.set()
        return taken[0] if len(taken) == 1 else b"".join(taken)
