"""A subscriber: one stream's place in the live set, and how it takes what the hub hands it."""

import asyncio
from collections.abc import Callable

import structlog

from feed.wire.chunk import PIECE, Chunk

log = structlog.get_logger(__name__)


class Totals:
    """Running totals of what was handed over: events, and bytes of all frames."""

    __slots__ = ("bytes", "events")

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0

    def add(self, events: int, size: int) -> None:
        """So much more; less, where negative."""
        self.events += events
        self.bytes += size


class Subscriber:
    """Lives in a group while it is at the head. One that does not keep up leaves, with its position, and pulls.

    What its group is handed is added up once for all members: each notes where the group's totals stands when it joins, and
    takes the difference along when it leaves.
    """

    __slots__ = ("_of_group", "_own", "_write", "failed", "live", "position", "told_at", "wake")

    def __init__(self, wake: asyncio.Event, write: Callable[[Chunk], bool]) -> None:
        self._write = write
        self._own = Totals()
        self._of_group: Totals | None = None
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

    def enter_group(self, totals: Totals) -> None:
        """From now on what its group is handed is handed to it."""
        self._own.add(-totals.events, -totals.bytes)
        self._of_group = totals

    def leave_group(self) -> None:
        """No longer; what it was handed so far stays its own."""
        if self._of_group is not None:
            self._own.add(self._of_group.events, self._of_group.bytes)
            self._of_group = None

    def count(self, events: int, size: int) -> None:
        """It was handed something that its group was not."""
        self._own.add(events, size)

    def offer(self, chunk: Chunk, upto: int, now: float) -> bool:
        """Write a chunk that ends at position `upto`, at loop time `now`; returns False where it is not taken.

        The caller then drops the subscriber. Whatever the wire raises is logged, and `failed` says so.
        """
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
