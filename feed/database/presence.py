"""Presence: every process on a database writes who it is and what it serves into a row of its own; whoever asks reads them.

One small write every few seconds is all that it costs a process, however often somebody asks.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import asyncpg
import orjson

from feed import __version__
from feed.database.connect import translated
from feed.errors import DatabaseRefused, DatabaseUnavailable, NotFound
from feed.fanout.stream_report import Sort, StreamEntry, StreamReport, StreamReporter, first_of
from feed.supervision import Backoff, supervised

WRITE_INTERVAL = 5.0
"""Seconds between two writes of a process."""
MISSING_AFTER = 15.0
"""Seconds without a write after which a process counts as missing, and its last report no longer counts."""
GONE_AFTER = 60.0
"""Seconds without a write after which a process counts as gone, and its row is deleted."""
REPORTED_STREAMS = 100
"""Streams that a process reports of each order at the most: those with the largest lag, the oldest, and so on."""
REPORT_BYTES = 64 * 1024
"""Size of a report as JSON at the most; the streams that come last in each order are left out."""
_READ_TIMEOUT = 2.0
"""Seconds after which whoever asks is told of this process alone."""
_DELETE_TIMEOUT = 1.0
"""Seconds that a process which ends waits for its row to be deleted."""
_KICK_AGE = 60.0
"""Seconds for which every process looks for a stream that is to end."""

_WRITE = """
INSERT INTO process AS p (id, host, pid, worker, version, started_at, report) VALUES ($1, $2, $3, $4, $5, $6, $7::json)
ON CONFLICT (id) DO UPDATE SET seen_at = clock_timestamp(), report = excluded.report
"""
_SWEEP = "DELETE FROM process WHERE seen_at < clock_timestamp() - make_interval(secs => $1)"
_READ = """
SELECT id, host, pid, worker, version, started_at, seen_at,
       CASE WHEN seen_at > clock_timestamp() - make_interval(secs => $2) THEN report END AS report
  FROM process WHERE seen_at > clock_timestamp() - make_interval(secs => $1) ORDER BY host, started_at, id
"""
_KNOWN = "SELECT id FROM process WHERE seen_at > clock_timestamp() - make_interval(secs => $1)"


@dataclass(frozen=True, slots=True)
class Process:
    """A process that serves streams."""

    id: str
    """The first part of its streams' ids."""
    host: str
    pid: int
    worker: int | None
    """Its number among the workers of its service; None where it serves alone."""
    version: str = __version__
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    seen_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    """When it last wrote, by the database's clock; for the process that asks, now by its own."""


@dataclass(frozen=True, slots=True)
class Reports:
    """What all processes on a database said of their streams, each when it last wrote."""

    sort: Sort
    limit: int
    processes: tuple[Process, ...]
    """All that are known, missing or not; the one that asked comes first."""
    by_process: dict[str, StreamReport]
    """The reports of those that are not missing, by the id of the process."""
    fault: str | None = None
    """Why the other processes could not be read; None where they were."""

    @property
    def missing(self) -> list[Process]:
        """The processes that have not written for too long."""
        return [process for process in self.processes if process.id not in self.by_process]

    def streams(self) -> list[tuple[Process, StreamEntry]]:
        """Return the first `limit` streams of all processes in the order of `sort`, each with its process."""
        processes = {process.id: process for process in self.processes}
        every = [(processes[id], entry) for id, report in self.by_process.items() for entry in report.entries]
        return first_of(every, self.sort, self.limit)


def this_process(id: str, worker: int | None) -> Process:
    """Return the process that runs this, as it starts."""
    return Process(id, socket.gethostname(), os.getpid(), worker)


class Presence:
    """Writes the row of this process, reads those of all, and ends a stream of any."""

    def __init__(
        self, pool: "asyncpg.Pool[asyncpg.Record]", reporter: StreamReporter, here: Process,
        revoke: Callable[[str, str, float], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._pool = pool
        self._reporter = reporter
        self._here = here
        self._revoke = revoke  # lets every process hear that something ends: its kind, its id, for how many seconds
        self._backoff = Backoff(WRITE_INTERVAL)

    async def run(self) -> None:
        """Write the row of this process every few seconds, for ever."""
        await supervised("presence", self._write_for_ever, self._backoff)

    async def leave(self) -> None:
        """Delete the row of this process, which ends, so that nobody misses it."""
        try:
            async with asyncio.timeout(_DELETE_TIMEOUT):
                with translated():
                    await self._pool.execute("DELETE FROM process WHERE id = $1", self._here.id)
        except (DatabaseUnavailable, DatabaseRefused, TimeoutError):
            pass  # others will delete it

    async def read(self, sort: Sort, limit: int) -> Reports:
        """Return the report of this process as of now, with `limit` streams at the most, and those of all others.

        Where the database does not answer, it is the report of this process alone, with a `fault`.
        """
        own = await self._reporter.report([sort], limit)
        processes, reports = [replace(self._here, seen_at=datetime.now(UTC))], {self._here.id: own}
        try:
            with translated():
                async with asyncio.timeout(_READ_TIMEOUT):
                    rows = await self._pool.fetch(_READ, GONE_AFTER, MISSING_AFTER)
        except (DatabaseUnavailable, DatabaseRefused) as error:
            return Reports(sort, limit, tuple(processes), reports, str(error))
        for *identity, report in rows:
            process = Process(*identity)
            if process.id == self._here.id:
                continue
            processes.append(process)
            if report is not None:
                reports[process.id] = StreamReport.read(orjson.loads(report))
                await asyncio.sleep(0)  # live frames go in between
        return Reports(sort, limit, tuple(processes), reports)

    async def kick(self, stream: str) -> bool:
        """End a stream of any process: True if it has ended, False if its process will end it within seconds.

        Another process is not asked whether it has the stream. Raises NotFound for a stream of a process that is not known,
        and for one that this process does not have; DatabaseUnavailable.
        """
        if self._reporter.end(stream):
            return True
        owner = stream.partition("-")[0]
        if owner == self._here.id or owner not in await self._known():
            raise NotFound(f"there is no open stream {stream[:80]!r}")
        await self._revoke("stream", stream, _KICK_AGE)
        return False

    async def _known(self) -> set[str]:
        """Return the ids of all processes that are not gone."""
        with translated():
            return {row["id"] for row in await self._pool.fetch(_KNOWN, GONE_AFTER)}

    async def _write_for_ever(self) -> None:
        while True:
            await self._write()
            self._backoff.reset()
            await asyncio.sleep(WRITE_INTERVAL)

    async def _write(self) -> None:
        here = self._here
        report = (await self._reporter.report(list(Sort), REPORTED_STREAMS)).document(REPORT_BYTES)
        with translated():
            await self._pool.execute(
                _WRITE, here.id, here.host, here.pid, here.worker, here.version, here.started_at, report
            )
            await self._pool.execute(_SWEEP, GONE_AFTER)
