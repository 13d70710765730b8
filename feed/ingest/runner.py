"""The runner: one run of one source, from the fetch of its list to the postings that are written and closed."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

import structlog

from feed.database.jobs import JobStore
from feed.database.source_runs import SourceRuns
from feed.database.source_writing import Remembering, Superseded
from feed.errors import ConfigurationError, DatabaseRefused, DatabaseUnavailable, FeedError, Invalid
from feed.ingest.adapter import Adapter, FetchError, Found, NotModified
from feed.ingest.changes import Change, Changes, bounded, chunks, compare, packed
from feed.ingest.closing import Sighting, Verdict, judge
from feed.ingest.fetcher import Ask, Fetcher
from feed.ingest.intervals import Intervals, Next
from feed.ingest.run_fetch import RunFetch
from feed.model.source import NO_CHANGES, BadRow, Counts
from feed.model.source_run import Claim, Ended, Listed
from feed.settings.ingest import IngestSettings

log = structlog.get_logger(__name__)

AdapterOf: TypeAlias = Callable[[str, str | None], Adapter]
"""Returns the adapter of a name, with the text of its mapping; raises ConfigurationError."""

_WRITERS = 2
"""Runs of one process that write at a time: lists and other writes want connections as well."""
_GONE = 2
"""Times in a row that a posting's page is not there, after which the posting closes."""
_LONGEST_ERROR = 500
"""Characters of an error that are kept."""


@dataclass(frozen=True, slots=True)
class Report:
    """What one run did."""

    source: str
    changes: Counts = NO_CHANGES
    error: str | None = None
    suspect: str | None = None
    found: int | None = None
    """Postings in the list; None where there was no new one."""
    bad: int = 0


@dataclass(slots=True)
class _Progress:
    """What a run has done so far."""

    changes: Counts = NO_CHANGES
    refused: list[BadRow] = field(default_factory=list)
    """Postings that the database did not take."""


@dataclass(frozen=True, slots=True)
class _Run:
    """A run that is under way."""

    claim: Claim
    adapter: Adapter
    intervals: Intervals
    progress: _Progress


class Runner:
    """Runs sources for one process."""

    def __init__(
        self, settings: IngestSettings, fetcher: Fetcher, jobs: JobStore, runs: SourceRuns, adapter_of: AdapterOf
    ) -> None:
        self._settings = settings
        self._fetcher = fetcher
        self._jobs = jobs
        self._runs = runs
        self._adapter_of = adapter_of
        self._writing = asyncio.Semaphore(_WRITERS)

    async def run(self, claim: Claim) -> Report:
        """Run a source and note how it ended; what is wrong with the source is in the report.

        Raises DatabaseUnavailable and DatabaseRefused. After a run that is cancelled, the next one goes on from what was
        written; the claim has to be given back.
        """
        progress = _Progress()
        try:
            return await self._run(claim, progress)
        except Superseded as error:
            return Report(claim.name, progress.changes, error=str(error))

    async def _run(self, claim: Claim, progress: _Progress) -> Report:
        try:
            async with asyncio.timeout(self._settings.run_timeout):
                report, ended = await self._fetched(self._begun(claim, progress))
        except (DatabaseUnavailable, DatabaseRefused, Superseded):
            raise
        except TimeoutError:
            text = f"the run did not end within {self._settings.run_timeout:g} s (FEED_INGEST_RUN_TIMEOUT)"
            report, ended = self._failed(claim, progress, text)
        except FeedError as error:
            asked = error.retry_after if isinstance(error, FetchError) else None
            report, ended = self._failed(claim, progress, str(error), asked)
        except Exception as error:
            log.exception("reading a source failed", source=claim.name)
            text = f"feed itself failed to read it: {type(error).__name__}: {error}"
            report, ended = self._failed(claim, progress, text)
        await self._runs.finish(claim, ended)
        return report

    def _begun(self, claim: Claim, progress: _Progress) -> _Run:
        source = claim.source
        adapter = self._adapter_of(source.adapter, source.mapping)
        if adapter.off is not None and not source.switched_on:
            raise ConfigurationError(f"{adapter.name} is off: {adapter.off}")
        # Another address is a mirror or a test, for which the board's own terms do not speak.
        least = adapter.terms.min_interval if source.url is None else 0.0
        return _Run(claim, adapter, Intervals(self._settings, least), progress)

    async def _fetched(self, run: _Run) -> tuple[Report, Ended]:
        source, adapter = run.claim.source, run.adapter
        url = source.url or adapter.address(source.board)
        fetch = RunFetch(self._fetcher, adapter.gap if source.url is None else 0.0, run.claim.validators)
        try:
            found = await adapter.read(source.board, url, fetch)
        except NotModified:
            if adapter.rolling and source.suspect is None:
                await self._follow_up(run)
            return Report(source.name, run.progress.changes), self._ended(run, self._next(run, changing=False))
        now = datetime.now(UTC)
        known = await self._runs.known(run.claim)
        changes = await asyncio.to_thread(compare, source.name, found, known, now)
        complete = found.complete and not changes.anonymous
        verdict = judge(source, known, Sighting(changes.ids, complete, adapter.rolling, found.company, now))
        async with self._writing:
            await self._apply(run, changes, verdict)
        if adapter.rolling and verdict.suspect is None:
            await self._follow_up(run)
        return self._listed(run, found, changes, verdict, fetch)

    def _listed(
        self, run: _Run, found: Found, changes: Changes, verdict: Verdict, fetch: RunFetch
    ) -> tuple[Report, Ended]:
        """Return what to note of a list that was applied."""
        refused = run.progress.refused
        applied = run.adapter.rolling or (found.complete and not changes.anonymous and not verdict.absent)
        count = len(found.postings) + len(found.bad)
        listed = Listed(
            suspect=verdict.suspect, used_acceptance=verdict.used_acceptance, company=verdict.company, counts=verdict.counts,
            empty_runs=verdict.empty_runs, empty_at=verdict.empty_at, found=count, bad=changes.bad + len(refused),
            faults=bounded([*changes.faults, *refused]),
            validators=fetch.validators if applied and verdict.suspect is None and not refused else None,
        )  # fmt: skip
        changing = bool(verdict.suspect or verdict.absent)
        report = Report(run.claim.name, run.progress.changes, None, verdict.suspect, count, listed.bad)
        return report, self._ended(run, self._next(run, changing=changing), listed)

    async def _apply(self, run: _Run, changes: Changes, verdict: Verdict) -> None:
        """Write what is new or differs, and close what is over."""
        if changes.changes or verdict.close or verdict.absent or verdict.doubted or verdict.back:
            await self._runs.distrust(run.claim)
        if not verdict.foreign:
            for are_new in (True, False):
                for chunk in chunks([change for change in changes.changes if change.is_new is are_new]):
                    await self._write(run, chunk, are_new=are_new)
        await self._runs.mark(run.claim, verdict.back, 0)
        await self._runs.mark(run.claim, verdict.absent, 1)
        await self._runs.mark(run.claim, verdict.doubted, -1)
        run.progress.changes += Counts(closed=await self._runs.close(run.claim, verdict.close))

    async def _write(self, run: _Run, chunk: list[Change], *, are_new: bool) -> None:
        """Write a part of the postings in one transaction. One that the database refuses is left out."""
        remembering = Remembering(
            run.claim, [change.remembered for change in chunk], are_new, run.claim.source.succeeded_at is None
        )
        try:
            written = await self._jobs.write_batches([packed(chunk)], remembering)
        except Invalid as error:
            if len(chunk) == 1:
                run.progress.refused.append(BadRow(chunk[0].remembered.external_id, error.faults))
                return
            middle = len(chunk) // 2
            await self._write(run, chunk[:middle], are_new=are_new)
            await self._write(run, chunk[middle:], are_new=are_new)
            return
        run.progress.changes += remembering.changes(written)

    async def _follow_up(self, run: _Run) -> None:
        """Close what a rolling source does not list any more and that is too old, or whose page is gone."""
        outdated = await self._runs.outdated(run.claim, self._settings.rolling_age)
        run.progress.changes += Counts(closed=await self._runs.close(run.claim, outdated, "expired"))
        for one in await self._runs.unseen(run.claim, self._settings.interval_max, self._settings.page_checks):
            gone = await self._is_gone(one.url, run.adapter.gap)
            if gone and one.gone + 1 >= _GONE:
                run.progress.changes += Counts(closed=await self._runs.close(run.claim, [one.external_id]))
            else:
                await self._runs.looked(run.claim, one.external_id, gone=gone)

    async def _is_gone(self, url: str, gap: float) -> bool | None:
        """Return whether a posting's page is not there any more; None where its host does not tell."""
        try:
            await self._fetcher.get(url, Ask("text/html", gap=gap, with_body=False))
        except FetchError as error:
            return True if error.kind in ("not_found", "gone") else None
        return False

    def _next(self, run: _Run, *, changing: bool) -> Next:
        if changing or run.progress.changes:
            return run.intervals.after_change()
        return run.intervals.after_silence(run.claim.source.wait)

    def _ended(self, run: _Run, due: Next, listed: Listed | None = None) -> Ended:
        terms = run.adapter.terms
        return Ended(
            due.wait,
            due.delay,
            run.progress.changes,
            None,
            listed,
            terms.attribution,
            terms.min_interval,
            terms.syndicate,
        )

    def _failed(self, claim: Claim, progress: _Progress, text: str, asked: float | None = None) -> tuple[Report, Ended]:
        source = claim.source
        intervals = Intervals(self._settings, source.min_interval if source.url is None else 0.0)
        due = intervals.after_failure(source.wait, source.failures, asked)
        text = text[:_LONGEST_ERROR]
        ended = Ended(
            due.wait, due.delay, progress.changes, text, None, source.attribution, source.min_interval, source.syndicate
        )
        return Report(claim.name, progress.changes, error=text), ended
