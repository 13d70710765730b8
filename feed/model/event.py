"""An event: one committed change of one posting, at one position of the log."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What happened to a posting, as subscribers are told. The log holds the values."""

    POSTED = "posted"
    UPDATED = "updated"
    CLOSED = "closed"
    CANARY = "canary"
    """Nothing happened to any posting: the event takes the whole way to measure it, and no subscriber is sent it."""
    UNKNOWN = "unknown"
    """A kind that only a newer version of feed knows: the event takes its position, and no subscriber is sent it.

    `Kind(text)` returns it for every text that is no other kind.
    """

    @classmethod
    def _missing_(cls, value: object) -> "Kind":
        return cls.UNKNOWN


UNSENT = frozenset((Kind.CANARY, Kind.UNKNOWN))
"""Kinds of events that no subscriber is sent."""


BACKFILL = "backfill"
"""The reason, in the log, of events for postings that were there already: the rows of a table when it is attached, those of
a source when it is fetched for the first time."""


@dataclass(frozen=True, slots=True)
class Event:
    """One position of the log.

    `job` is the posting after the change, without its description; `was` holds the fields that filters read, as they
    were before, and is None where the change left them alone. `reason` says why a posting closed, or is BACKFILL.
    `captured` is when the row of a canary was written, in monotonic time of this process.
    """

    position: int
    kind: Kind
    job: dict[str, Any]
    was: dict[str, Any] | None = None
    reason: str | None = None
    captured: float | None = None

    @property
    def is_backfill(self) -> bool:
        """Whether the posting is no news: it was there before feed knew of it."""
        return self.reason == BACKFILL
