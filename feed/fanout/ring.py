"""The ring: the newest events, held in memory, bounded by their number and by the bytes that they take."""

from collections.abc import Iterable

from feed.fanout.encoded_event import EncodedEvent


class Ring:
    """Events of dense positions up to the head. At most `events` of them and `size` bytes are held; the oldest fall out."""

    def __init__(self, events: int, size: int) -> None:
        self._events = events
        self._size = size
        self._held: dict[int, EncodedEvent] = {}  # by position
        self._first = 0  # the position of the oldest one; without any, of the next one
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def bytes(self) -> int:
        """The bytes that the events take."""
        return self._bytes

    def covers(self, position: int) -> bool:
        """Whether every event after `position`, up to the head, is held."""
        return bool(self._held) and position >= self._first - 1

    def extend(self, batch: Iterable[EncodedEvent]) -> None:
        """Append the events of the next positions, and drop the oldest ones that are over the bounds."""
        held = self._held
        for one in batch:
            if not held:
                self._first = one.position
            held[one.position] = one
            self._bytes += one.size
            while held and (len(held) > self._events or self._bytes > self._size):
                self._bytes -= held.pop(self._first).size
                self._first += 1

    def after(self, position: int, limit: int) -> list[EncodedEvent]:
        """Return at most `limit` events that follow `position`. Call it only where `covers(position)` is true."""
        held = self._held
        first = max(position + 1, self._first)
        return [held[one] for one in range(first, min(first + limit, self._first + len(held)))]

    def clear(self) -> None:
        """Drop all events."""
        self._held.clear()
        self._bytes = 0
