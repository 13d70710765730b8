"""`feed ingest`: fetches the public boards that are due."""

import asyncio
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from feed.cli.database import DatabaseUrl, DataDir, existing_database, settings_of
from feed.cli.exit_codes import Exit
from feed.cli.messages import clean, say
from feed.database.check import check
from feed.database.connect import pool
from feed.database.jobs import JobStore
from feed.database.migrate import migrate
from feed.database.source_runs import SourceRuns
from feed.database.sources import SourceStore
from feed.ingest.extra import missing_extra
from feed.ingest.ingest import scheduled
from feed.ingest.runner import Report
from feed.model.source import NO_CHANGES, Counts, Source
from feed.observability.logs import configure
from feed.settings.settings import Settings

_INTERRUPTED = 130


@dataclass(slots=True)
class _Tally:
    """What the runs have done so far."""

    fetched: int = 0
    failed: int = 0
    suspect: int = 0
    bad: int = 0
    changes: Counts = NO_CHANGES

    def add(self, report: Report) -> None:
        """Count a run that has ended, and say what a person should look at."""
        self.fetched += 1
        self.changes += report.changes
        self.bad += report.bad
        if report.error is not None:
            self.failed += 1
            say(f"{report.source} failed: {report.error}")
        if report.suspect is not None:
            self.suspect += 1
            say(f"{report.source} is suspect: {report.suspect}. If it is true: feed source accept {report.source}")

    def __str__(self) -> str:
        sources = "1 source" if self.fetched == 1 else f"{self.fetched:,} sources"
        more = f", {self.bad:,} could not be read" if self.bad else ""
        return f"{sources} fetched: {self.changes}{more}; {self.failed:,} failed, {self.suspect:,} suspect"


def ingest(
    once: Annotated[bool, typer.Option("--once", help="Fetch what is due now, and end.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Fetch the public boards that are due.

    What is due now is fetched once, and what changed is written.
    `feed serve` does the same on schedule, so this is for a feed that nobody serves just now, for a cron job beside
    FEED_INGEST=false, or to see at once what a new source brings. A source that another process fetches is left to it.

    Exit codes: 0 done, 1 a source failed, 2 usage, 3 the database does not answer, 130 interrupted.

    \b
    Examples:
      feed source add greenhouse:acme && feed ingest --once
      FEED_INGEST_CONCURRENCY=2 feed ingest --once --database-url postgresql://jobs@db.example/jobs
    """
    if not once:
        raise typer.BadParameter("`feed serve` fetches sources on schedule. To fetch those that are due now: --once.")
    settings = settings_of(database_url, data_dir)
    configure("error", settings.logging.format)  # the command itself says what became of each source
    tally = _Tally()
    try:
        asyncio.run(_run(settings, tally))
    except KeyboardInterrupt:
        say(f"interrupted: {tally}; run the same command again to continue")
        raise typer.Exit(_INTERRUPTED) from None
    if tally.failed:
        raise typer.Exit(Exit.FAILED)


async def _run(settings: Settings, tally: _Tally) -> None:
    async with existing_database(settings) as dsn:
        await check(settings.database, dsn)
        await migrate(settings, dsn)
        async with pool(settings.database, dsn) as connections:
            runs = SourceRuns(connections)
            sources, now = await SourceStore(connections).list(), await runs.now()
            due = [one for one in sources if _is_due(one, now)]
            if not due:
                _explain(sources, now)
                return
            with _progress() as progress:
                bar = progress.add_task("", total=len(due), tally=str(tally))

                def report(one: Report) -> None:
                    tally.add(one)
                    progress.update(bar, advance=1, tally=clean(str(tally)))

                async with scheduled(settings.ingest, JobStore(connections), runs) as schedule:
                    await schedule.once(report)
            print(tally)


def _is_due(source: Source, now: datetime) -> bool:
    return source.paused_at is None and not source.running and source.next_at is not None and source.next_at <= now


def _explain(sources: list[Source], now: datetime) -> None:
    """Say why nothing is fetched."""
    missing = missing_extra()
    waiting = [one.next_at for one in sources if one.paused_at is None and one.next_at is not None]
    if not sources:
        say("there are no sources yet: feed source add greenhouse:acme")
    elif not waiting:
        say("all sources are paused: feed source resume NAME:BOARD")
    else:
        minutes = max(0.0, (min(waiting) - now).total_seconds()) / 60
        say(f"no source is due; the next one is in {minutes:.0f} min (or another process fetches it now)")
    if missing is not None:
        say(missing)


def _progress() -> Progress:
    """Return a bar on a terminal, and nothing anywhere else."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[tally]}"))
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
