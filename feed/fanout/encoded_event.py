"""An event with its frame, which is encoded once in a process and shared by all who get it."""

import orjson

from feed.model.event import UNSENT, Event, Kind
from feed.model.filter import EVERYTHING, Filter, Terms
from feed.model.frame import data_of, event_frame, left_frame

_FIXED = 500
"""Bytes of an event beside its texts: the objects that hold it."""


class EncodedEvent:
    """An event of one epoch, ready to be matched by filters and sent.

    `frame` is empty where the event is of a kind that no subscriber is sent. The posting itself is not kept, because it
    takes ten times the memory of its frame. What filters read of it is made when one first asks.
    """

    __slots__ = ("_before", "_now", "_was", "epoch", "frame", "is_backfill", "kind", "position")

    def __init__(self, epoch: int, event: Event) -> None:
        self.epoch = epoch
        self.position = event.position
        self.kind = event.kind
        self.is_backfill = event.is_backfill
        self.frame = b"" if event.kind in UNSENT else event_frame(epoch, event, event.kind)
        # Copied, because what orjson returns keeps the buffer of some kilobytes that it was written into.
        self._was = None if event.was is None else b"%b" % orjson.dumps(event.was)
        self._now: Terms | None = None
        self._before: Terms | None = None

    @property
    def size(self) -> int:
        """The bytes of memory that it takes, with what filters read, whether or not that has been made yet."""
        text = len(self.frame)
        return _FIXED + 2 * text if self._was is None else 2 * (_FIXED + len(self._was) + text)

    @property
    def terms(self) -> tuple[Terms, Terms]:
        """The posting after the change and before it: the same object twice where no filter sees a difference.

        Call it only where `frame` is not empty.
        """
        if self._now is None or self._before is None:
            self._now = Terms(data_of(self.frame))
            self._before = self._now if self._was is None else Terms(orjson.loads(self._was))
        return self._now, self._before

    def frame_for(self, wanted: Filter) -> bytes | None:
        """Return the frame that subscribers with this filter get, or None where they get none."""
        if not self.frame:
            return None
        if wanted is EVERYTHING:  # which needs no terms
            return self.frame
        if self.is_backfill and not wanted.wants_backfill:
            return None
        now, before = self.terms
        kind = wanted.kind_of(self.kind, now, before)
        if kind is None:
            return None
        if wanted.within is not None and not wanted.within.matches(now):
            return self._hidden_frame()
        return self.frame if kind is self.kind else left_frame(self.frame)

    def _hidden_frame(self) -> bytes:
        """Return a frame that says only that the posting left the part of the feed that a credential may see."""
        data = data_of(self.frame)
        job = {name: data[name] for name in ("id", "version", "updated_at", "closed_at")}
        return event_frame(self.epoch, Event(self.position, Kind.UPDATED, job), Kind.CLOSED)
