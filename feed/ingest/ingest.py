"""Ingest: fetches the sources that are due, in the process whose sequencer leads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

import structlog

from feed.database.jobs import JobStore
from feed.database.sequencer import Sequencer
from feed.database.source_runs import SourceRuns
from feed.errors import ConfigurationError
from feed.ingest.extra import missing_extra
from feed.ingest.fetcher import opened
from feed.ingest.runner import Runner
from feed.ingest.schedule import Schedule
from feed.settings.ingest import IngestSettings
from feed.settings.settings import Settings
from feed.supervision import Backoff, supervised

log = structlog.get_logger(__name__)


class Ingest:
    """Fetches for as long as this process leads. Without any source it asks the database for one, every few seconds."""

    def __init__(self, settings: Settings, jobs: JobStore, runs: SourceRuns, sequencer: Sequencer) -> None:
        self._settings = settings.ingest
        self._jobs = jobs
        self._runs = runs
        self._sequencer = sequencer
        self._backoff = Backoff(settings.database.reconnect_max)
        self._told = False  # what is missing

    async def run(self) -> None:
        """Work for ever, whenever this process leads."""
        await supervised("ingest", self._work_while_leading, self._backoff)

    async def _work_while_leading(self) -> None:
        leading = self._sequencer.leading
        while True:
            await leading.wait()
            if await self._has_work():
                async with scheduled(self._settings, self._jobs, self._runs) as schedule:
                    await schedule.follow(leading)
            else:
                await asyncio.sleep(self._settings.poll)

    async def _has_work(self) -> bool:
        """Return whether there are sources, and what it takes to fetch them; says once what is missing."""
        due = await self._runs.next_due()
        self._backoff.reset()
        if due is None:
            return False
        missing = missing_extra()
        if missing is not None and not self._told:
            log.error("sources are not fetched", error=missing)
            self._told = True
        return missing is None


@asynccontextmanager
async def scheduled(settings: IngestSettings, jobs: JobStore, runs: SourceRuns) -> AsyncIterator[Schedule]:
    """Yield a schedule whose runs fetch with the adapters that there are.

    Raises ConfigurationError for a bad FEED_INGEST_CA_FILE, and where the libraries are missing (`missing_extra`).
    """
    try:
        # It needs the extra, which `feed serve` without sources does without; it takes long enough to hold up live streams.
        adapters = await asyncio.to_thread(import_module, "feed.ingest.adapters")
    except ImportError as error:
        raise ConfigurationError(missing_extra() or str(error)) from error
    async with opened(settings) as fetcher:
        yield Schedule(settings, runs, Runner(settings, fetcher, jobs, runs, adapters.adapter_of).run)
