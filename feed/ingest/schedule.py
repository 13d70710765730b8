"""The schedule: runs the sources that are due, a few at a time, the longest overdue first."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, TypeAlias

import structlog

from feed.database.source_runs import SourceRuns
from feed.errors import FeedError
from feed.ingest.runner import Report
from feed.model.source_run import Claim
from feed.settings.ingest import IngestSettings

log = structlog.get_logger(__name__)

Run: TypeAlias = Callable[[Claim], Coroutine[Any, Any, Report]]

_LEASE = 60.0
"""Seconds after which the sources of a process that has died are run by others. Claims are renewed at every look."""
_RELEASE = 2.0
"""Seconds for which the end waits until the sources of runs that it cut off are free."""
_LOOKS = 6
"""Looks at least in that time."""

Running: TypeAlias = dict[asyncio.Task[Report], Claim]


class Schedule:
    """Claims sources and runs them. Whatever ends it, the runs under way are cancelled, and end before it does."""

    def __init__(self, settings: IngestSettings, runs: SourceRuns, run: Run) -> None:
        self._settings = settings
        self._runs = runs
        self._run = run
        self._lease = max(_LEASE, _LOOKS * settings.poll)

    async def follow(self, leading: asyncio.Event) -> None:
        """Run whatever is due, as long as `leading` is set; raises what a run raises."""
        async with self._under_way() as running:
            while leading.is_set():
                await self._begin(running, self._logged)
                if running:
                    await self._wait(running)
                else:
                    await asyncio.sleep(await self._pause())

    async def once(self, report: Callable[[Report], None]) -> None:
        """Run every source once that is due now, and hand on each report; raises what a run raises."""
        now = await self._runs.now()
        async with self._under_way() as running:
            while True:
                await self._begin(running, self._run, now)
                if not running:
                    return
                for one in await self._wait(running):
                    report(one)

    async def _begin(self, running: Running, run: Run, due: datetime | None = None) -> None:
        """Claim sources for the places that are free, and begin their runs."""
        free = self._settings.concurrency - len(running)
        if free <= 0:
            return
        for claim in await self._claimed(free, due):
            running[asyncio.create_task(run(claim), name=f"run of {claim.name}")] = claim

    async def _pause(self) -> float:
        """Return the seconds until the next look. What is due and could not be claimed has a host that is busy elsewhere."""
        due = await self._runs.next_due()
        return self._settings.poll if due is None or due <= 0 else min(due, self._settings.poll)

    async def _wait(self, running: Running) -> list[Report]:
        """Wait until a run has ended, which frees a place and its host, or until the next look; return what ended.

        Raises what a run raised.
        """
        await asyncio.wait(running, timeout=self._settings.poll, return_when=asyncio.FIRST_COMPLETED)
        done = [task for task in running if task.done()]
        for task in done:
            del running[task]
        for error in [task.exception() for task in done]:
            if error is not None:
                raise error
        await self._runs.renew(list(running.values()), self._lease)
        return [task.result() for task in done]

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

    async def _claimed(self, free: int, due: datetime | None) -> list[Claim]:
        """Claim sources; when this is cancelled in between, nothing stays claimed that nobody would run."""
        claiming = asyncio.create_task(self._runs.claim(free, self._lease, due), name="claiming sources")
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(FeedError, TimeoutError):
                async with asyncio.timeout(_RELEASE):
                    await self._release(await claiming)
            raise

    async def _release(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            await self._runs.release(claim)

    @asynccontextmanager
    async def _under_way(self) -> AsyncIterator[Running]:
        """Yield a place for the runs under way; on leaving they are cancelled, have ended, and their sources are free."""
        running: Running = {}
        try:
            yield running
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            with suppress(FeedError, TimeoutError):
                async with asyncio.timeout(_RELEASE):
                    await self._release(claim for task, claim in running.items() if task.cancelled())
