"""An event: one committed change of one posting, at one position of the log."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What happened to the posting, as its subscribers see it."""

    POSTED = "posted"
    UPDATED = "updated"
    CLOSED = "closed"
    CANARY = "canary"
    """Nothing happened: it takes the whole way, tells how long that takes, and no subscriber is sent it."""
    UNKNOWN = "unknown"
    """A kind that a newer version of feed wrote to the log: it takes its position, and no subscriber is sent it."""

    @classmethod
    def _missing_(cls, value: object) -> "Kind":
        return cls.UNKNOWN


UNSENT = frozenset((Kind.CANARY, Kind.UNKNOWN))
"""Kinds of events that no subscriber is sent."""


@dataclass(frozen=True, slots=True)
class Event:
    """One position of the log.

    `job` is the posting after the change, without its description; `was` holds the fields that filters read, as they
    were before, and is None where the change left them alone. `reason` says why a posting closed. `captured` is when the
    row of a canary was written, in monotonic time of this process.
    """

    position: int
    kind: Kind
    job: dict[str, Any]
    was: dict[str, Any] | None = None
    reason: str | None = None
    captured: float | None = None
