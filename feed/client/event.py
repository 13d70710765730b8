"""A stream event: one thing that a followed stream has to say."""

from dataclasses import dataclass
from typing import Any

import orjson
from httpx_sse import ServerSentEvent

from feed.client.errors import UnexpectedAnswer
from feed.model.cursor import parse_cursor

POSTINGS = frozenset({"posted", "updated", "closed"})


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One thing that a followed stream says: `kind` tells what, `data` is its JSON object.

    Always yielded:
    `posted`, `updated`, `closed`: `data` is the posting (a closed one with `reason`; `backfill` is true where
    it was there before the feed knew of it).
    `reset`: the cursor was of no use and postings may have been missed; `data` is `reason` and `snapshot`,
    the list to fetch. The stream goes on from the head.

    With `control=True` also:
    `connected`: `data` is `url` and `http_version`.  `cursor`: the stream stands at `id`.
    `synced`: replay has met the head; `data` is `position` and `replayed` (a count).
    `heartbeat`: nothing has happened; `data` is `position` and `at` (RFC 3339).
    `goodbye`: the server ends the stream; `data` is `reason` and `retry_ms`.
    `reconnecting`: `data` is `reason` (text) and `delay_ms`.

    `id` is the cursor to resume from once this event is dealt with: `<epoch>.<position>`, "" before the
    first.
    """

    id: str
    kind: str
    data: dict[str, Any]

    @property
    def is_posting(self) -> bool:
        """Whether `data` is a posting: the kind is posted, updated or closed."""
        return self.kind in POSTINGS

    @property
    def is_backfill(self) -> bool:
        """Whether `data` is a posting that was there before the feed knew of it: a table was attached, or a source added."""
        return self.data.get("backfill") is True

    @property
    def position(self) -> int | None:
        """The place of this event in the log, or None where `id` spells none."""
        cursor = parse_cursor(self.id)
        return cursor.position if cursor else None


def read_event(frame: ServerSentEvent, cursor: str) -> StreamEvent | None:
    """Return the event that `frame` carries at `cursor`, or None for a frame that only sets `retry`."""
    # httpx-sse calls an event without a name "message", as browsers do.
    if frame.event != "message" or frame.data:
        return StreamEvent(cursor, frame.event, _read_data(frame.data))
    return StreamEvent(cursor, "cursor", {}) if frame.id else None


def _read_data(text: str) -> dict[str, Any]:
    try:
        data = orjson.loads(text or "{}")
    except orjson.JSONDecodeError as error:
        raise UnexpectedAnswer(f"an event carries something other than JSON: {error}") from error
    if not isinstance(data, dict):
        raise UnexpectedAnswer("an event carries something other than a JSON object")
    return data
