"""The schedule: runs the sources that are due, a few at a time, the longest overdue first."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, TypeAlias

import structlog

from feed.database.source_runs import SourceRuns
from feed.ingest.runner import Report
from feed.model.source_run import Claim
from feed.settings.ingest import IngestSettings

log = structlog.get_logger(__name__)

Run: TypeAlias = Callable[[Claim], Coroutine[Any, Any, Report]]

_MARGIN = 60.0
"""Seconds that a claim lasts longer than a run may take."""


class Schedule:
    """Claims sources and runs them. Whatever ends it, the runs under way are cancelled, and end before it does."""

    def __init__(self, settings: IngestSettings, runs: SourceRuns, run: Run) -> None:
        self._settings = settings
        self._runs = runs
        self._run = run

    async def follow(self, leading: asyncio.Event) -> None:
        """Run whatever is due, as long as `leading` is set; raises what a run raises."""
        async with _under_way() as running:
            while leading.is_set():
                await self._begin(running, self._logged)
                if running:
                    # A run that ends frees a place, and its host.
                    await asyncio.wait(running, timeout=self._settings.poll, return_when=asyncio.FIRST_COMPLETED)
                    _ended(running)
                else:
                    due = await self._runs.next_due()
                    await asyncio.sleep(
                        self._settings.poll if due is None else min(max(due, 0.01), self._settings.poll)
                    )

    async def once(self, report: Callable[[Report], None]) -> None:
        """Run every source once that is due now, and hand on each report; raises what a run raises."""
        now = await self._runs.now()
        async with _under_way() as running:
            while True:
                await self._begin(running, self._run, now)
                if not running:
                    return
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for one in _ended(running):
                    report(one)

    async def _begin(self, running: set[asyncio.Task[Report]], run: Run, due: datetime | None = None) -> None:
        """Claim sources for the places that are free, and begin their runs."""
        free = self._settings.concurrency - len(running)
        if free <= 0:
            return
        for claim in await self._runs.claim(free, self._settings.run_timeout + _MARGIN, due):
            running.add(asyncio.create_task(run(claim), name=f"run of {claim.name}"))

    async def _logged(self, claim: Claim) -> Report:
        """Run a source and log what is worth a line."""
        report = await self._run(claim)
        changes = report.changes
        if report.error is not None and report.error != claim.source.error:
            log.warning("a source cannot be fetched", source=report.source, error=report.error)
        if report.suspect is not None and report.suspect != claim.source.suspect:
            log.warning("a source is suspect", source=report.source, suspect=report.suspect)
        if changes:
            log.info(
                "a source changed", source=report.source, posted=changes.posted, updated=changes.updated,
                closed=changes.closed,
            )  # fmt: skip
        return report


@asynccontextmanager
async def _under_way() -> AsyncIterator[set[asyncio.Task[Report]]]:
    """Yield the set of the runs under way; on leaving they are cancelled, and have ended."""
    running: set[asyncio.Task[Report]] = set()
    try:
        yield running
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _ended(running: set[asyncio.Task[Report]]) -> list[Report]:
    """Take the runs that have ended out of those under way and return what they did; raises what one of them raised."""
    done = [task for task in running if task.done()]
    running.difference_update(done)
    for error in [task.exception() for task in done]:
        if error is not None:
            raise error
    return [task.result() for task in done]
