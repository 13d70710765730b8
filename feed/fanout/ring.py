"""The ring: the newest events, held in memory, bounded by their number and by the bytes of their frames."""

from collections.abc import Iterable

from feed.fanout.encoded_event import EncodedEvent


class Ring:
    """Events of dense positions up to the head. At most `events` of them and `size` bytes are held; the oldest fall out."""

    def __init__(self, events: int, size: int) -> None:
        self._events = events
        self._size = size
        self._held: list[EncodedEvent] = []  # what has fallen out stays at the beginning until it is half of the list
        self._gone = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held) - self._gone

    def covers(self, position: int) -> bool:
        """Whether every event after `position`, up to the head, is held."""
        return len(self._held) > self._gone and position >= self._held[self._gone].position - 1

    def extend(self, batch: Iterable[EncodedEvent]) -> None:
        """Append the events of the next positions, and drop the oldest ones that are over the bounds."""
        held = self._held
        for one in batch:
            held.append(one)
            self._bytes += len(one.frame)
        while len(self) > self._events or (self._bytes > self._size and len(self)):
            self._bytes -= len(held[self._gone].frame)
            self._gone += 1
        if self._gone * 2 > len(held):
            del held[: self._gone]
            self._gone = 0

    def after(self, position: int, limit: int) -> list[EncodedEvent]:
        """Return at most `limit` events that follow `position`. Call it only where `covers(position)` is true."""
        first = self._gone + max(0, position + 1 - self._held[self._gone].position)
        return self._held[first : first + limit]

    def clear(self) -> None:
        """Drop all events."""
        self._held.clear()
        self._gone = 0
        self._bytes = 0
