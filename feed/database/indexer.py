"""The indexer: enters into the search index what the log says has changed, in the process whose sequencer leads."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from feed.database.connect import owned, translated
from feed.database.lexemes import lexemes_of
from feed.database.sequencer import Sequencer
from feed.model.filter import Terms
from feed.model.posting import FILTERED
from feed.settings.settings import Settings
from feed.supervision import Backoff, supervised

log = structlog.get_logger(__name__)

BATCH = 250
"""Events, or ids, that one transaction enters."""
_INTERVAL = 0.1
"""Seconds between two looks whether there are enough events for a transaction."""
_ENOUGH = 100
"""Events that are worth a transaction at once; every list reads what is not entered yet."""
_LATEST = 0.5
"""Seconds after which fewer are entered: each transaction takes eight round trips, however few there are."""
_LOOK = 5.0
"""Seconds after which the database is asked for work of which this process has not heard."""
_SLICE = 20
"""Postings whose lexemes are made in one turn of the event loop: about 1 ms."""
_PROGRESS = 50_000
"""Ids between two lines in the log while existing postings are entered."""
_BUILD = 3600.0
"""Seconds that building the indexes over the lexemes of existing postings may take; a million take about 30."""

_STATE = """
SELECT i.position, i.filled, s.floor, s.head FROM search_state i CROSS JOIN state s FOR UPDATE OF i
"""
_EVENTS = """
SELECT l.position, CASE WHEN l.kind IN ('posted', 'updated', 'closed') THEN l.job[1]::bigint END AS id
  FROM log l WHERE l.position > $1 ORDER BY l.position LIMIT $2
"""
# posted_at travels as a text: a timestamptz goes on beyond the year 9999, and a datetime does not.
_COLUMNS = ", ".join(f"j.{name}" for name in FILTERED)
_POSTINGS = f"SELECT j.id, j.closed_at IS NULL AS open, j.posted_at::text, {_COLUMNS} FROM job j"
_ENTER = """
INSERT INTO search (id, open, posted_at, pay, latitude, longitude, lexemes)
SELECT * FROM unnest($1::bigint[], $2::boolean[], $3::text[]::timestamptz[], $4::float8[], $5::float8[], $6::float8[],
                     $7::text[]::tsvector[])
ON CONFLICT (id) DO UPDATE SET open = excluded.open, posted_at = excluded.posted_at, pay = excluded.pay,
  latitude = excluded.latitude, longitude = excluded.longitude, lexemes = excluded.lexemes
"""
_COUNT = """
UPDATE search_state s SET opened = s.opened + $1::bigint - b.opened, closed = s.closed + $2::bigint - b.closed
  FROM (SELECT count(*) FILTER (WHERE x.open) AS opened, count(*) FILTER (WHERE NOT x.open) AS closed
          FROM search x WHERE x.id = ANY ($3::bigint[])) b
"""


class Indexer:
    """Follows the log while this process leads, on a connection of its own.

    A posting is entered as `job` holds it, not as the event tells it. So the index may know more than its position says, and
    never less: whatever it does not know yet has an event behind that position. Every step is one transaction that locks the
    row of `search_state` first; a second indexer, of a leader that was deposed, waits for it and goes on from there.
    """

    def __init__(self, settings: Settings, dsn: str, sequencer: Sequencer, head: Callable[[], int]) -> None:
        self._settings = settings
        self._dsn = dsn
        self._sequencer = sequencer
        self._head = head  # the newest position that this process has heard of
        self._backoff = Backoff(settings.database.reconnect_max)
        self._told = 0  # the id of the last line about progress
        self.position = 0
        """Of the log: changes up to here are in the index, as far as this process knows."""
        self.reconnects = -1  # connections after the first

    async def run(self) -> None:
        """Work for ever, whenever this process leads."""
        await supervised("search index", self._work_while_leading, self._backoff)

    async def _work_while_leading(self) -> None:
        while True:
            await self._sequencer.leading.wait()
            async with owned(
                self._settings.database, self._dsn, "search index",
                idle_session_timeout="0", default_transaction_isolation="read committed",
            ) as connection:  # fmt: skip
                self.reconnects += 1
                with translated():
                    await self._follow(connection)

    async def _follow(self, connection: Any) -> None:
        loop = asyncio.get_running_loop()
        while self._sequencer.leading.is_set():
            began = loop.time()
            entered = await self.step(connection)
            self._backoff.reset()
            took = loop.time() - began
            if entered >= BATCH:
                await asyncio.sleep(took)  # writers, readers and subscribers want the processors as well
                continue
            await asyncio.sleep(max(_INTERVAL, took))
            while self._sequencer.leading.is_set() and not self._due(loop.time() - began):
                await asyncio.sleep(_INTERVAL)

    def _due(self, seconds: float) -> bool:
        """Whether to look at the log again, so many seconds after the last time."""
        waiting = self._head() - self.position
        return waiting >= _ENOUGH or seconds >= (_LATEST if waiting > 0 else _LOOK)

    async def step(self, connection: Any) -> int:
        """Enter the next batch, and return how many events or ids it had: fewer than BATCH where there is no more."""
        async with connection.transaction():
            state = await connection.fetchrow(_STATE)
            if not state["floor"] <= state["position"] <= state["head"]:
                await self._begin_anew(connection, state["head"])
                return BATCH
            self.position = state["position"]
            if state["filled"] is not None:
                return await self._fill(connection, state["filled"])
            events = await connection.fetch(_EVENTS, state["position"], BATCH)
            if not events:
                return 0
            ids = sorted({event["id"] for event in events if event["id"] is not None})
            if ids:
                await self._enter(connection, ids, await connection.fetch(f"{_POSTINGS} WHERE j.id = ANY ($1)", ids))
            await connection.execute("UPDATE search_state SET position = $1", events[-1]["position"])
        self.position = events[-1]["position"]
        return len(events)

    async def _begin_anew(self, connection: Any, head: int) -> None:
        """Empty the index, because events between its position and the log's floor are gone."""
        log.warning("the search index is built anew", position=self.position, head=head)
        await connection.execute("DELETE FROM search", timeout=_BUILD)
        await connection.execute("UPDATE search_state SET position = $1, filled = 0, opened = 0, closed = 0", head)

    async def _fill(self, connection: Any, filled: int) -> int:
        """Enter the next of the postings that were there before the index."""
        rows = await connection.fetch(f"{_POSTINGS} WHERE j.id > $1 ORDER BY j.id LIMIT $2", filled, BATCH)
        if rows:
            await self._enter(connection, [row["id"] for row in rows], rows)
            filled = rows[-1]["id"]
            await connection.execute("UPDATE search_state SET filled = $1", filled)
            if not self._told <= filled < self._told + _PROGRESS:
                self._told = filled
                last = await connection.fetchval("SELECT max(id) FROM job")
                log.info("indexing postings for lists", id=filled, last=last)
        if len(rows) < BATCH:
            log.info("indexing the words of postings for lists")
            await connection.execute("SELECT index_lexemes()", timeout=_BUILD)
            await connection.execute("UPDATE search_state SET filled = NULL")
            log.info("lists use the search index")
        return BATCH

    async def _enter(self, connection: Any, ids: Sequence[int], rows: Sequence[Any]) -> None:
        """Make the index say of `ids` what `rows` say, which are those of them that exist."""
        opened = sum(row["open"] for row in rows)
        await connection.execute(_COUNT, opened, len(rows) - opened, ids)
        if len(rows) < len(ids):
            gone = set(ids) - {row["id"] for row in rows}
            await connection.execute("DELETE FROM search WHERE id = ANY ($1)", list(gone))
        columns: list[list[Any]] = [[] for _ in range(7)]
        for number, row in enumerate(rows, 1):
            terms = Terms(row)
            values = (
                row["id"], row["open"], row["posted_at"], terms.pay, row["latitude"], row["longitude"],
                lexemes_of(row, terms),
            )  # fmt: skip
            for column, value in zip(columns, values, strict=True):
                column.append(value)
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        await connection.execute(_ENTER, *columns)
