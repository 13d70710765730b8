"""A subscriber: one stream as the hub sees it, with its position and what it was handed."""

import asyncio

import structlog

from feed.wire.chunk import Chunk
from feed.wire.wire import Wire

log = structlog.get_logger(__name__)


class Totals:
    """What was handed over in all: events, and bytes of all frames; and how far that reached."""

    __slots__ = ("bytes", "events", "position", "told_at")

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0
        self.position = 0  # everything up to here was handed over
        self.told_at = 0.0  # loop time of the last chunk

    def add(self, events: int, size: int) -> None:
        """Add to the totals; negative numbers are taken off."""
        self.events += events
        self.bytes += size

    def reach(self, position: int, now: float) -> None:
        """Note that everything up to `position` was handed over by the loop time `now`."""
        self.position = position
        self.told_at = now


class Subscriber:
    """A stream that is a member of a group while it is live, that is, at the head.

    A subscriber that cannot take a chunk leaves the group and keeps its position; its stream (stream.py) then pulls what
    it missed.

    Each group counts what it sends once, for all members. A subscriber subtracts the group's totals from its own when it
    joins, and adds them when it leaves. In the same way its position is its group's while it is live.
    """

    __slots__ = ("_of_group", "_own", "failed", "live", "wake", "wire")

    def __init__(self, wake: asyncio.Event, wire: Wire) -> None:
        self.wire = wire
        self._own = Totals()
        self._of_group: Totals | None = None
        self.live = False
        self.failed = False  # feed itself failed while it was handed an event: its stream must end
        self.wake = wake

    @property
    def position(self) -> int:
        """The position up to which everything was handed over."""
        own = self._own.position
        return own if self._of_group is None else max(own, self._of_group.position)

    @position.setter
    def position(self, position: int) -> None:
        self._own.position = position

    @property
    def told_at(self) -> float:
        """Loop time of the last chunk that it took."""
        own = self._own.told_at
        return own if self._of_group is None else max(own, self._of_group.told_at)

    @told_at.setter
    def told_at(self, now: float) -> None:
        self._own.told_at = now

    @property
    def events(self) -> int:
        """Events that it was handed while it was live, in all."""
        return self._own.events + (0 if self._of_group is None else self._of_group.events)

    @property
    def size(self) -> int:
        """Bytes that it was handed while it was live, in all."""
        return self._own.bytes + (0 if self._of_group is None else self._of_group.bytes)

    def enter_group(self, totals: Totals) -> None:
        """Count what its group is handed from now on as handed to it, too."""
        self._own.add(-totals.events, -totals.bytes)
        self._of_group = totals

    def leave_group(self) -> None:
        """Stop counting along with its group; what it was handed so far stays counted."""
        if self._of_group is not None:
            self._own.add(self._of_group.events, self._of_group.bytes)
            self._own.reach(self.position, self.told_at)
            self._of_group = None

    def count(self, events: int, size: int) -> None:
        """Count something that it was handed and the rest of its group was not."""
        self._own.add(events, size)

    def offer(self, chunk: Chunk, upto: int, now: float) -> bool:
        """Write a chunk that ends at position `upto`, at loop time `now`; returns False where it is not taken.

        The caller then drops the subscriber. Whatever the wire raises is logged, and `failed` says so.
        """
        try:
            if not self.wire.write(chunk):
                return False
        except Exception:
            self.fail()
            return False
        self._own.reach(upto, now)
        return True

    def offer_rest(self, chunk: Chunk, sent: int) -> bool:
        """Write what is left of a chunk of which the native writer has written `sent` bytes; returns False after a fault."""
        try:
            self.wire.write_rest(chunk, sent)
        except Exception:
            self.fail()
            return False
        return True

    def fail(self) -> None:
        """Note that its wire has just raised: its stream must end. Call it while the exception is handled."""
        log.exception("a subscriber failed", position=self.position)
        self.failed = True
