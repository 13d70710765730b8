"""Continuity: an unfiltered stream's ids prove that no position is missing, doubled or out of order."""

from feed.client.errors import ClientError
from feed.client.event import StreamEvent
from feed.model.cursor import Cursor, parse_cursor


class BrokenContinuity(ClientError):
    """An unfiltered stream skipped, repeated or reversed positions; the text says which."""


class Continuity:
    """Watches the events of one unfiltered `follow(..., control=True)`, across its reconnects."""

    def __init__(self) -> None:
        self.events = 0
        self._last: Cursor | None = None

    def check(self, event: StreamEvent) -> None:
        """Take the next event into account; raises BrokenContinuity."""
        if event.kind == "reset":
            reason = event.data.get("reason")
            raise BrokenContinuity(f"reset ({reason}) after {self._place()}: events up to {event.id} may be missing")
        if not (event.is_posting or event.kind in ("cursor", "heartbeat")):
            return
        here = parse_cursor(event.id)
        if here is None:
            raise BrokenContinuity(f"{event.kind} without a position after {self._place()}: {event.id!r}")
        if event.is_posting:
            self._follow(here)
            self.events += 1
        elif self._last is None:
            self._last = here
        elif event.kind == "heartbeat" and here.position != self._last.position:
            raise BrokenContinuity(f"heartbeat at {here} after {self._place()}: events between are missing")

    def _follow(self, here: Cursor) -> None:
        last, self._last = self._last, here
        # The epoch is not compared: each process names the positions around an epoch's start by the epoch that it knew when
        # it read them, and a server that does not share the history says `reset`.
        if last is None or here.position == last.position + 1:
            return
        if here.position > last.position + 1:
            missing = here.position - last.position - 1
            raise BrokenContinuity(f"gap: {here} came after {last}, {missing:,} missing")
        if here.position == last.position:
            raise BrokenContinuity(f"duplicate: {here} came twice")
        raise BrokenContinuity(f"inversion: {here} came after {last}")

    def _place(self) -> str:
        return str(self._last) if self._last else "the start"

    def __str__(self) -> str:
        return f"{self.events:,} events up to {self._place()}, none missing, doubled or out of order"
