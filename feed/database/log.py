"""The log as replay reads it: pages of events, its state, its epochs."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import asyncpg
import orjson

from feed.database.connect import translated
from feed.database.prefilter import prefilter
from feed.fanout.history import Found, LogState
from feed.model.event import Event, Kind
from feed.model.filter import Filter
from feed.model.posting import FIELDS, FILTERED

_SLICE = 50
"""Rows that a replay decodes in one turn of the event loop, about half a millisecond, so that live events need not wait."""

READ = """
SELECT l.position, l.kind, l.reason, l.job, l.was FROM log l
 WHERE l.position > $1 AND l.position <= $2 AND l.position > (SELECT s.floor FROM state s)
 ORDER BY l.position
"""

# What a filter may want of some positions, with the state that the same snapshot saw; {condition} is of prefilter.py.
FIND = """
SELECT s.head, s.floor, l.position, l.kind, l.reason, l.job, l.was
  FROM state s LEFT JOIN log l ON l.position > $1 AND l.position <= $2 AND ({condition})
 ORDER BY l.position
"""

# What follows a position, with the state that the same snapshot saw: one round trip for the tailer. The first event, and
# a canary, come with their ages in seconds, since they were sequenced and since their rows were written: by the database's
# clock at both ends, so that clocks need not agree.
TAIL = """
SELECT s.epoch, s.head, s.floor, l.position, l.kind, l.reason, l.job, l.was, l.age, l.row_age
  FROM state s LEFT JOIN LATERAL (
    SELECT n.position, n.kind, n.reason, n.job, n.was,
           CASE WHEN n.position = $1 + 1 THEN extract(epoch FROM clock_timestamp() - n.at)::float8 END AS age,
           CASE WHEN n.position = $1 + 1 OR n.kind = 'canary'
             THEN extract(epoch FROM clock_timestamp() - n.captured_at)::float8 END AS row_age
      FROM log n
     WHERE n.position > greatest($1, s.floor) ORDER BY n.position LIMIT $2) l
    ON true
 ORDER BY l.position
"""


def _json(text: str) -> Any:
    return orjson.loads(text)


def _time(text: str) -> str:
    """Postgres writes ISO times with a blank and a short offset; RFC 3339 wants neither."""
    return f"{text[:10]}T{text[11:]}:00" if text.endswith("+00") else text


# How the texts of the log read: a posting's fields that are more than text (migrations/0002_capture.sql writes them).
_READ: dict[str, Callable[[str], Any]] = {
    "id": _json, "tags": _json, "version": int, "salary_min": float, "salary_max": float, "latitude": float,
    "longitude": float, "posted_at": _time, "valid_through": _time, "updated_at": _time, "closed_at": _time,
}  # fmt: skip
_Reader = Callable[[str], Any] | None
_OF_JOB: tuple[tuple[str, _Reader], ...] = tuple((name, _READ.get(name)) for name in FIELDS)
_OF_WAS: tuple[tuple[str, _Reader], ...] = tuple((name, _READ.get(name)) for name in FILTERED)
_KINDS = {kind.value: kind for kind in Kind if kind is not Kind.UNKNOWN}


def events_of(rows: Iterable[Any]) -> list[Event]:
    """Decode rows of READ. A row written by an older version may lack the newest fields: they read as None.

    A row whose kind this version does not know becomes an event of `Kind.UNKNOWN` without a posting, whatever it holds.
    """
    return [_event_of(*row) for row in rows]


def _event_of(
    position: int, kind: str, reason: str | None, job: list[str | None], was: list[str | None] | None
) -> Event:
    known = _KINDS.get(kind)
    if known is None:
        return Event(position, Kind.UNKNOWN, dict.fromkeys(FIELDS))
    return Event(position, known, _named(_OF_JOB, job), None if was is None else _named(_OF_WAS, was), reason)


def tail_of(rows: Sequence[Any], now: float) -> list[Event]:
    """Decode rows of TAIL that came `now`, in monotonic time."""
    events = events_of(row[3:8] for row in rows)
    for place, event in enumerate(events):
        if event.kind is Kind.CANARY and (age := rows[place]["row_age"]) is not None:
            events[place] = replace(event, captured=now - age)
    return events


def _named(fields: tuple[tuple[str, _Reader], ...], texts: list[str | None]) -> dict[str, Any]:
    if len(texts) < len(fields):
        texts = [*texts, *[None] * (len(fields) - len(texts))]
    return {
        name: text if text is None or read is None else read(text)
        for (name, read), text in zip(fields, texts, strict=False)
    }  # fmt: skip


async def _decoded(rows: Sequence[Any]) -> list[Event]:
    """Decode rows of READ, a few in each turn of the event loop."""
    events: list[Event] = []
    for begin in range(0, len(rows), _SLICE):
        events += events_of(rows[begin : begin + _SLICE])
        await asyncio.sleep(0)
    return events


class Log:
    """The `LogReader` of `feed.fanout.history`, on Postgres."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    async def state(self) -> LogState:
        """The log now, read afresh."""
        with translated():
            rows = await self._pool.fetch("SELECT epoch, head, floor FROM state")
        return LogState(*rows[0])

    async def read(self, after: int, upto: int) -> list[Event]:
        """The events with after < position <= upto that are not pruned, ascending."""
        with translated():
            rows = await self._pool.fetch(READ, after, upto)
        return await _decoded(rows)

    async def find(self, after: int, upto: int, wanted: Filter) -> Found:
        """The events with after < position <= upto that a filter may want."""
        arguments: list[Any] = [after, upto]
        sql = FIND.format(condition=prefilter(wanted, arguments))
        with translated():
            rows = await self._pool.fetch(sql, *arguments)
        head, floor = rows[0]["head"], rows[0]["floor"]
        return Found(head, floor, await _decoded([row[2:] for row in rows if row["position"] is not None]))

    async def epoch_end(self, epoch: int) -> int | None:
        """The last position that `epoch` shares with its successors; None for an epoch that never was."""
        with translated():
            row = await self._pool.fetchrow(
                "SELECT e.epoch, (SELECT min(n.start_position) FROM epoch n WHERE n.epoch > e.epoch) AS until "
                "FROM epoch e WHERE e.epoch = $1",
                epoch,
            )
        if row is None:
            return None
        return 2**63 - 1 if row["until"] is None else int(row["until"])

    async def position_before(self, instant: datetime) -> int:
        """The last position sequenced before `instant`."""
        with translated():
            return int(await self._pool.fetchval("SELECT position_before($1)", instant))
