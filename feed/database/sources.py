"""The sources, as a person looks after them: added, listed, paused, accepted and removed."""

from collections.abc import Mapping
from typing import Any

import asyncpg
import orjson

from feed.database.connect import translated
from feed.errors import Fault, Invalid, NotFound
from feed.model.source import BadRow, Counts, NewSource, Source

REMOVED = "removed"
"""The reason of the events by which the postings of a removed source close."""
_REMOVAL = 600.0
"""Seconds that closing all postings of a source may take."""

COLUMNS = """
s.name, s.adapter, s.board, s.host, s.url, s.mapping, s.switched_on, s.attribution, s.min_interval, s.syndicate,
s.added_at, s.paused_at, s.accepted, coalesce(s.claimed_until > clock_timestamp(), false) AS running, s.next_at, s.wait,
s.tried_at, s.succeeded_at, s.changed_at, s.failures, s.error, s.suspect, s.suspect_at, s.company, s.counts, s.empty_runs,
s.empty_at, s.found, s.open, s.bad, s.faults, s.posted, s.updated, s.closed, s.last_change
"""
"""What `source_of` reads."""

_ADD = """
INSERT INTO source (name, adapter, board, host, url, mapping, switched_on, attribution, min_interval, syndicate)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (name) DO NOTHING RETURNING name
"""
_CLOSE_ALL = """
UPDATE job SET closed_at = clock_timestamp() WHERE source = $1 AND closed_at IS NULL
"""


class SourceStore:
    """The sources in Postgres. Every call raises DatabaseUnavailable while that is away."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool

    async def add(self, new: NewSource) -> Source:
        """Keep a new source, whose first run is due at once; raises Invalid where there is one of that name."""
        with translated():
            added = await self._pool.fetchval(
                _ADD, new.name, new.adapter, new.board, new.host, new.url, new.mapping, new.switched_on, new.attribution,
                new.min_interval, new.syndicate,
            )  # fmt: skip
        if added is None:
            raise Invalid([Fault("source", f"there is a source {new.name} already: `feed source list` shows it")])
        return await self.read(new.name)

    async def list(self) -> list[Source]:
        """Return all sources in the order of their names."""
        with translated():
            return [source_of(row) for row in await self._pool.fetch(f"SELECT {COLUMNS} FROM source s ORDER BY s.name")]

    async def read(self, name: str) -> Source:
        """Return one source; raises NotFound."""
        with translated():
            row = await self._pool.fetchrow(f"SELECT {COLUMNS} FROM source s WHERE s.name = $1", name)
        if row is None:
            raise NotFound(f"there is no source {name}: `feed source list` shows them")
        return source_of(row)

    async def pause(self, name: str) -> Source:
        """Begin no further run of a source. A run that is under way goes on to its end. Raises NotFound."""
        return await self._change(name, "paused_at = coalesce(paused_at, clock_timestamp())")

    async def resume(self, name: str) -> Source:
        """Let a paused source run again, at once; raises NotFound."""
        return await self._change(name, "paused_at = NULL, next_at = clock_timestamp()")

    async def accept(self, name: str) -> Source:
        """Have the next complete list of a source believed, and fetch it at once.

        Raises NotFound, and Invalid where nothing about the source is suspect.
        """
        source = await self.read(name)
        if source.suspect is None:
            raise Invalid([Fault("source", f"nothing about {name} is suspect, so there is nothing to accept")])
        return await self._change(name, "accepted = true, next_at = clock_timestamp()")

    async def missing(self, name: str) -> int:
        """Return how many open postings of a source the newest list did not have, whether it is believed or not."""
        with translated():
            count: int = await self._pool.fetchval(
                "SELECT count(*) FROM source_posting p WHERE p.source = $1 AND p.missed <> 0", name
            )
        return count

    async def remove(self, name: str) -> int:
        """Forget a source, close its postings and return how many were open; raises NotFound.

        The events say that the reason is `removed`. A run that is under way writes nothing more.
        """
        with translated():
            async with self._pool.acquire() as connection, connection.transaction():
                if await connection.fetchval("DELETE FROM source WHERE name = $1 RETURNING name", name) is None:
                    raise NotFound(f"there is no source {name}: `feed source list` shows them")
                await connection.execute("SELECT set_config('feed.reason', $1, true)", REMOVED)
                return int((await connection.execute(_CLOSE_ALL, name, timeout=_REMOVAL)).split()[-1])

    async def _change(self, name: str, what: str) -> Source:
        with translated():
            row = await self._pool.fetchrow(f"UPDATE source s SET {what} WHERE s.name = $1 RETURNING {COLUMNS}", name)
        if row is None:
            raise NotFound(f"there is no source {name}: `feed source list` shows them")
        return source_of(row)


def source_of(row: asyncpg.Record) -> Source:
    """Return the source in a row that has COLUMNS."""
    same = (
        "adapter", "board", "host", "url", "mapping", "switched_on", "attribution", "min_interval", "syndicate", "added_at",
        "paused_at", "accepted", "running", "next_at", "wait", "tried_at", "succeeded_at", "changed_at", "failures", "error",
        "suspect", "suspect_at", "company", "empty_runs", "empty_at", "found", "open", "bad",
    )  # fmt: skip
    return Source(
        **{name: row[name] for name in same},
        counts=tuple(row["counts"]),
        faults=tuple(_bad_row(entry) for entry in orjson.loads(row["faults"])),
        total=Counts(row["posted"], row["updated"], row["closed"]),
        last_change=Counts(*row["last_change"]),
    )


def faults_json(rows: tuple[BadRow, ...]) -> str:
    """Return the bad postings of a list as the column `faults` holds them."""
    return orjson.dumps(
        [
            {
                "external_id": row.external_id,
                "faults": [{"field": fault.field, "message": fault.message} for fault in row.faults],
            }
            for row in rows
        ]
    ).decode()


def _bad_row(entry: Mapping[str, Any]) -> BadRow:
    faults = tuple(Fault(fault["field"], fault["message"]) for fault in entry["faults"])
    return BadRow(entry["external_id"], faults)
