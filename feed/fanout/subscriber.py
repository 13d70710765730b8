"""A subscriber: one stream as the hub sees it, with its position and what it was handed."""

import asyncio
from collections.abc import Callable

import structlog

from feed.wire.chunk import Chunk

log = structlog.get_logger(__name__)


class Totals:
    """What was handed over in all: events, and bytes of all frames."""

    __slots__ = ("bytes", "events")

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0

    def add(self, events: int, size: int) -> None:
        """Add to the totals; negative numbers are taken off."""
        self.events += events
        self.bytes += size


class Subscriber:
    """A stream that is a member of a group while it is live, that is, at the head.

    A subscriber that cannot take a chunk leaves the group and keeps its position; its stream (stream.py) then pulls what
    it missed.

    Each group counts what it sends once, for all members. A subscriber subtracts the group's totals from its own when it
    joins, and adds them when it leaves.
    """

    __slots__ = ("_of_group", "_own", "_write", "failed", "live", "position", "told_at", "wake")

    def __init__(self, wake: asyncio.Event, write: Callable[[Chunk], bool]) -> None:
        self._write = write  # of its wire
        self._own = Totals()
        self._of_group: Totals | None = None
        self.position = 0  # everything up to here was handed over
        self.live = False
        self.failed = False  # feed itself failed while it was handed an event: its stream must end
        self.told_at = 0.0  # loop time of the last chunk that it took
        self.wake = wake

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
            self._of_group = None

    def count(self, events: int, size: int) -> None:
        """Count something that it was handed and the rest of its group was not."""
        self._own.add(events, size)

    def offer(self, chunk: Chunk, upto: int, now: float) -> bool:
        """Write a chunk that ends at position `upto`, at loop time `now`; returns False where it is not taken.

        The caller then drops the subscriber. Whatever the wire raises is logged, and `failed` says so.
        """
        try:
            if not self._write(chunk):
                return False
        except Exception:
            log.exception("a subscriber failed", position=self.position)
            self.failed = True
            return False
        self.position = upto
        self.told_at = now
        return True
