"""Events and frames for tests that need some and do not care which."""

from collections.abc import Iterable
from typing import Any

from feed.fanout.encoded_event import EncodedEvent
from feed.model.event import Event, Kind
from feed.model.posting import FIELDS

EPOCH = 7


def event(position: int, kind: Kind = Kind.POSTED, was: dict[str, Any] | None = None, **fields: Any) -> Event:
    """An event at `position`; `fields` say what is not null, `was` what differed before."""
    job = dict.fromkeys(FIELDS) | {
        "id": position, "source": "test", "title": f"Job {position}", "company": "Acme", "url": "https://acme.example",
        "tags": [], "version": 1,
    }  # fmt: skip
    return Event(position, kind, job | fields, None if was is None else job | fields | was)


def encoded(positions: Iterable[int], **fields: Any) -> list[EncodedEvent]:
    """EncodedEvent events at `positions`."""
    return [EncodedEvent(EPOCH, event(position, **fields)) for position in positions]


def positions(batch: Iterable[EncodedEvent]) -> list[int]:
    """Where they are."""
    return [one.position for one in batch]
