"""A subscriber: one stream's place in the live set, and how it takes what the hub hands it."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

import structlog

from feed.wire.chunk import Chunk

log = structlog.get_logger(__name__)

PIECE = 64 * 1024
"""Bytes handed over at once: who waits for a client to take them gives up on one that stops, not on one that is slow."""


class Account:
    """Running totals of what was handed over: events, and bytes of all frames."""

    __slots__ = ("bytes", "events")

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0

    def add(self, events: int, size: int) -> None:
        """So much more; less, where negative."""
        self.events += events
        self.bytes += size


class Subscriber(ABC):
    """Lives in a group while it is at the head. One that does not keep up leaves, with its position, and pulls.

    What its group is handed is added up once for all members: each notes where the group's account stands when it joins, and
    takes the difference along when it leaves.
    """

    __slots__ = ("_of_group", "_own", "failed", "live", "position", "told_at", "wake")

    def __init__(self, wake: asyncio.Event) -> None:
        self._own = Account()
        self._of_group: Account | None = None
        self.position = 0  # everything up to here has been given
        self.live = False
        self.failed = False  # something of ours raised while it was handed an event: its stream cannot go on
        self.told_at = 0.0  # loop time of the last chunk
        self.wake = wake

    @property
    def events(self) -> int:
        """Events that it was handed while live, ever."""
        return self._own.events + (0 if self._of_group is None else self._of_group.events)

    @property
    def size(self) -> int:
        """Bytes that it was handed while live, ever."""
        return self._own.bytes + (0 if self._of_group is None else self._of_group.bytes)

    def share(self, account: Account) -> None:
        """From now on what its group is handed is handed to it."""
        self._own.add(-account.events, -account.bytes)
        self._of_group = account

    def part(self) -> None:
        """No longer; what it was handed so far stays its own."""
        if self._of_group is not None:
            self._own.add(self._of_group.events, self._of_group.bytes)
            self._of_group = None

    def charge(self, events: int, size: int) -> None:
        """It was handed something that its group was not."""
        self._own.add(events, size)

    @abstractmethod
    def offer(self, chunk: Chunk, upto: int, now: float) -> bool:
        """Take a chunk that ends at position `upto`; False where it cannot be taken now: the caller drops the member."""

    @abstractmethod
    def take(self) -> bytes:
        """What was given and is not on its way yet, as one piece of at most PIECE bytes; empty where there is nothing."""


class Pushed(Subscriber):
    """What it is given is on its way at once, by the wire."""

    __slots__ = ("_write",)

    def __init__(self, wake: asyncio.Event, write: Callable[[Chunk], bool]) -> None:
        super().__init__(wake)
        self._write = write

    def offer(self, chunk: Chunk, upto: int, now: float) -> bool:
        """Write it."""
        try:
            if chunk.size > PIECE or not self._write(chunk):
                return False
        except Exception:
            log.exception("a subscriber failed", position=self.position)
            self.failed = True
            return False
        self.position = upto
        self.told_at = now
        return True

    def take(self) -> bytes:
        """Nothing is left."""
        return b""


class Queued(Subscriber):
    """What it is given waits for the stream's task to fetch it, bounded by `limit` bytes."""

    __slots__ = ("_chunks", "_limit", "_offset", "_rouse", "_size", "queued")

    def __init__(self, wake: asyncio.Event, limit: int, rouse: Callable[["Queued"], None]) -> None:
        super().__init__(wake)
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._limit = limit
        self._offset = 0  # of the first chunk, what has been taken
        self._rouse = rouse  # wakes it, in its turn
        self.queued = False  # for that turn

    def offer(self, chunk: Chunk, upto: int, now: float) -> bool:
        """Put it into the queue; one chunk over the bound is taken where nothing else is there."""
        if self._size and self._size + chunk.size > self._limit:
            return False
        self._chunks.append(chunk.body)
        self._size += chunk.size
        self.position = upto
        self.told_at = now
        if not self.queued:
            self._rouse(self)
        return True

    def take(self, most: int = PIECE) -> bytes:
        """What was given so far; a larger chunk in slices, so that it stays the one object that the group shares."""
        chunks = self._chunks
        if not chunks:
            return b""
        if self._offset or len(chunks[0]) > most:
            piece = chunks[0][self._offset : self._offset + most]
            self._offset += len(piece)
            if self._offset == len(chunks[0]):
                chunks.popleft()
                self._offset = 0
        else:
            taken = [chunks.popleft()]
            size = len(taken[0])
            while chunks and size + len(chunks[0]) <= most:
                size += len(chunks[0])
                taken.append(chunks.popleft())
            piece = taken[0] if len(taken) == 1 else b"".join(taken)
        self._size -= len(piece)
        return piece
