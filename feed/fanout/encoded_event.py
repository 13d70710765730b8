"""An event with its frames, which are encoded once in a process and shared by all who get them."""

from dataclasses import replace

from feed.model.event import UNSENT, Event, Kind
from feed.model.filter import Filter, Terms
from feed.model.frame import event_frame


class EncodedEvent:
    """An event of one epoch, ready to be matched by filters and sent.

    `frame` is empty where the event is of a kind that no subscriber is sent.
    """

    __slots__ = ("_before", "_hidden", "_left", "_now", "epoch", "event", "frame", "position")

    def __init__(self, epoch: int, event: Event) -> None:
        self.epoch = epoch
        self.event = event
        self.position = event.position
        self.frame = b"" if event.kind in UNSENT else event_frame(epoch, event, event.kind)
        self._now = Terms(event.job)
        self._before = self._now if event.was is None else Terms(event.was)
        self._left: bytes | None = None
        self._hidden: bytes | None = None

    @property
    def terms(self) -> tuple[Terms, Terms]:
        """The posting after the change and before it: the same object twice where no filter sees a difference."""
        return self._now, self._before

    def frame_for(self, wanted: Filter) -> bytes | None:
        """Return the frame that subscribers with this filter get, or None where they get none."""
        if not self.frame:
            return None
        kind = wanted.kind_of(self.event, self._now, self._before)
        if kind is None:
            return None
        if wanted.within is not None and not wanted.within.matches(self._now):
            return self._hidden_frame()
        if kind is self.event.kind:
            return self.frame
        if self._left is None:
            self._left = event_frame(self.epoch, self.event, Kind.CLOSED)
        return self._left

    def _hidden_frame(self) -> bytes:
        """Return a frame that says only that the posting left the part of the feed that a credential may see."""
        if self._hidden is None:
            job = {name: self.event.job[name] for name in ("id", "version", "updated_at", "closed_at")}
            self._hidden = event_frame(self.epoch, replace(self.event, kind=Kind.UPDATED, job=job), Kind.CLOSED)
        return self._hidden
