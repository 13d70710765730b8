"""An event with its frames: encoded once in a process, shared by all who get it."""

from dataclasses import replace

from feed.model.event import UNSENT, Event, Kind
from feed.model.filter import Filter, Terms
from feed.model.frame import event_frame


class EncodedEvent:
    """One position, ready to be matched and sent."""

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
        """The posting as it is and as it was (the same object where filters see no difference)."""
        return self._now, self._before

    def frame_for(self, wanted: Filter) -> bytes | None:
        """The frame that subscribers with this filter get; None where they get none."""
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
        """For those whose credential shows no more of the posting than that it left their part of the feed."""
        if self._hidden is None:
            job = {name: self.event.job[name] for name in ("id", "version", "updated_at", "closed_at")}
            self._hidden = event_frame(self.epoch, replace(self.event, kind=Kind.UPDATED, job=job), Kind.CLOSED)
        return self._hidden
