"""`feed post`: reads postings from a file or a pipe and writes them to a feed."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from feed.cli.credential import Key
from feed.cli.records import Record, Records
from feed.cli.terminal import DEFAULT_URL, Exit, say
from feed.client import Backoff, FeedClient, Refused, Unavailable
from feed.client import Written as WrittenByFeed
from feed.database.jobs import Written as WrittenToStore
from feed.database.jobs import open_store
from feed.errors import ConfigurationError, DatabaseUnavailable, Fault, FeedError, Invalid
from feed.model.mapping import RecordMap
from feed.model.posting import PostingIn, faults_of

# Bytes: what a server takes for one posting, and what one request of ours holds (a server takes 32 MiB).
_LARGEST_POSTING = 1024 * 1024
_LARGEST_BATCH = 8 * 1024 * 1024
# Seconds, at most, before the first retry; it doubles from there.
_RETRY = 1.0
_INTERRUPTED = 130

Counts = WrittenByFeed | WrittenToStore
"""What a batch changed, in postings: created, updated, unchanged."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A posting ready to be written: where it came from, its identity and its JSON."""

    place: str
    key: tuple[str, str]
    json: bytes


Write = Callable[[Sequence[Prepared]], Awaitable[Counts]]
"""Writes a batch, all or nothing; raises Invalid or Refused with faults that name items by their index."""


@dataclass(slots=True)
class Tally:
    """What has happened so far, in records."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        skipped = f", {self.skipped:,} skipped" if self.skipped else ""
        return (
            f"{self.created:,} created, {self.updated:,} updated, {self.unchanged:,} unchanged, "
            f"{self.rejected:,} rejected{skipped}"
        )


def post(
    file: Annotated[str, typer.Argument(help="A file of JSON or NDJSON, or - for standard input.")],
    map_file: Annotated[
        Path | None, typer.Option("--map", metavar="FILE", help="A mapping (TOML) from foreign records.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The feed to post to.  [default: http://127.0.0.1:8000]")
    ] = None,
    database_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Write straight to this database instead.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Postings in a request.")] = 500,
    retries: Annotated[
        int, typer.Option(min=0, max=1000, help="How often to try again while the server cannot be had.")
    ] = 5,
    key: Key = None,
) -> None:
    """Post job postings from a file or a pipe.

    The input is a JSON object, an array of them, or NDJSON (an object a line). NDJSON is read as it comes, in
    bounded memory; a pipe that pauses has what it gave so far posted at once. Writing is idempotent on source
    + external_id, so that an interrupted run is simply run again; a record without external_id gets one made
    of its content. Bad records are named on stderr and left out.

    \b
    Examples:
      feed post jobs.ndjson
      scraper | feed post - --url https://jobs.example.org
      feed post listings.json --map simplify.toml
      feed post jobs.json --database-url postgresql://localhost/jobs

    \b
    Exit codes:
      0    everything was written
      1    some records were rejected (the others were written), or the server refused
      2    the command, the file or the mapping is wrong
      3    the server or the database cannot be reached (run again to go on)
      130  interrupted (run again to go on)
    """
    if url and database_url:
        raise typer.BadParameter("give --url or --database-url, not both")
    mapping = RecordMap.load(map_file) if map_file else None
    run = Run(mapping, batch, retries)
    try:
        with _open(file) as source:
            asyncio.run(run.post(Records(source.fileno()), _target(url, database_url, key)))
    except FeedError:
        say(f"stopped: {run.tally}")
        raise
    except KeyboardInterrupt:
        say(f"interrupted: {run.tally}; the same command goes on from there")
        raise typer.Exit(_INTERRUPTED) from None
    print(run.tally)
    if run.tally.rejected:
        raise typer.Exit(Exit.FAILED)


class Run:
    """One run of `feed post`: from records to written batches."""

    def __init__(self, mapping: RecordMap | None, size: int, retries: int) -> None:
        self.tally = Tally()
        self._mapping = mapping
        self._size = size
        self._retries = retries
        self._backoff = Backoff()

    async def post(self, records: Records, target: AbstractAsyncContextManager[Write]) -> None:
        """Write all `records` to `target`; raises what keeps it from going on."""
        with _progress() as progress:
            bar = progress.add_task("posting", total=records.total, tally="")
            async with target as write:
                async for batch in self._batches(records):
                    await self._write(batch, write)
                    progress.update(bar, completed=records.done, tally=str(self.tally))

    async def _batches(self, records: Records) -> AsyncIterator[list[Prepared]]:
        """Yield batches, bounded in postings and bytes, none with a posting twice; at once on a pause."""
        batch: dict[tuple[str, str], Prepared] = {}
        size = 0
        async for record in records:
            prepared = self._prepare(record) if record else None
            if record and not prepared:
                continue
            full = len(batch) == self._size or (prepared and size + len(prepared.json) > _LARGEST_BATCH)
            if batch and (full or not prepared or prepared.key in batch):
                yield list(batch.values())
                batch, size = {}, 0
            if prepared:
                batch[prepared.key] = prepared
                size += len(prepared.json)
        if batch:
            yield list(batch.values())

    def _prepare(self, record: Record) -> Prepared | None:
        """Return the posting that `record` stands for; None when it was rejected or skipped."""
        if record.value is None:
            self._reject(record.place, [Fault("record", record.fault)])
            return None
        try:
            posting = self._mapping.apply(record.value) if self._mapping else record.value
        except Invalid as error:
            self._reject(record.place, error.faults)
            return None
        if posting is None:
            self.tally.skipped += 1
            return None
        try:
            external_id = posting.get("external_id")
            if external_id is None:
                external_id = name_by_content(posting)
            text = orjson.dumps({**posting, "external_id": external_id})
        except orjson.JSONEncodeError as error:
            self._reject(record.place, [Fault("record", str(error))])
            return None
        if len(text) > _LARGEST_POSTING:
            self._reject(record.place, [Fault("record", f"is over {_LARGEST_POSTING >> 20} MiB")])
            return None
        source = posting.get("source", PostingIn.model_fields["source"].default)
        return Prepared(record.place, (str(source), str(external_id)), text)

    async def _write(self, batch: list[Prepared], write: Write) -> None:
        """Write `batch`, again and again without the records that are refused by name."""
        while batch:
            try:
                counts = await self._persist(batch, write)
            except (Invalid, Refused) as error:
                bad = {fault.index for fault in error.faults if fault.index is not None}
                if not bad:
                    raise
                for index in sorted(bad):
                    faults = [fault for fault in error.faults if fault.index == index]
                    self._reject(batch[index].place, faults)
                batch = [prepared for index, prepared in enumerate(batch) if index not in bad]
            else:
                self.tally.created += counts.created
                self.tally.updated += counts.updated
                self.tally.unchanged += counts.unchanged
                return

    async def _persist(self, batch: list[Prepared], write: Write) -> Counts:
        """Write `batch`, trying again while the target cannot be had."""
        failures = 0
        while True:
            try:
                return await write(batch)
            except (Unavailable, DatabaseUnavailable) as error:
                if failures == self._retries:
                    raise
                asked = error.retry_after if isinstance(error, Unavailable) else None
                delay = self._backoff.delay(_RETRY, failures, asked)
                say(f"{error}; trying again in {delay:.1f} s")
            failures += 1
            await asyncio.sleep(delay)

    def _reject(self, place: str, faults: Iterable[Fault]) -> None:
        """Say what is wrong with a record, and count it out."""
        self.tally.rejected += 1
        for fault in faults:
            say(f"{place}: {fault.field}: {fault.message}")


def name_by_content(posting: dict[str, Any]) -> str:
    """Return an external id made of what the posting says: the same content, the same id."""
    content = {name: value for name, value in posting.items() if name != "external_id"}
    canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return f"sha256-{hashlib.sha256(canonical).hexdigest()[:20]}"


@asynccontextmanager
async def _target(url: str | None, database_url: str | None, key: str | None) -> AsyncIterator[Write]:
    """Open what is written to: a database, or the feed at `url`."""
    if database_url:
        async with open_store(database_url) as store:

            async def write_to_store(batch: Sequence[Prepared]) -> Counts:
                return await store.write(_validated(batch))

            yield write_to_store
    else:
        async with FeedClient(url or DEFAULT_URL, key=key) as client:

            async def write_to_feed(batch: Sequence[Prepared]) -> Counts:
                return await client.post(b"\n".join(prepared.json for prepared in batch))

            yield write_to_feed


def _validated(batch: Sequence[Prepared]) -> list[PostingIn]:
    """Return the postings of `batch`, or raise Invalid with every fault in it, as a server would."""
    postings: list[PostingIn] = []
    faults: list[Fault] = []
    for index, prepared in enumerate(batch):
        try:
            postings.append(PostingIn.model_validate(orjson.loads(prepared.json)))
        except ValidationError as error:
            faults += faults_of(error, index)
    if faults:
        raise Invalid(faults)
    return postings


def _open(file: str) -> BinaryIO:
    try:
        return open(0, "rb", 0, closefd=False) if file == "-" else Path(file).open("rb", 0)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error


def _progress() -> Progress:
    """Return a progress bar on stderr, which shows only on a terminal."""
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[tally]}"), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
