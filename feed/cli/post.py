"""`feed post`: reads postings from a file or a pipe and writes them to a feed."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from feed.cli.client_options import Key
from feed.cli.exit_codes import Exit
from feed.cli.faults import FaultReport
from feed.cli.messages import say
from feed.cli.record_reader import Record, RecordReader
from feed.cli.target import Prepared, Target, open_target, validated
from feed.client import Backoff, Refused, Unavailable
from feed.errors import ConfigurationError, DatabaseUnavailable, Fault, FeedError, Invalid
from feed.model.mapping import RecordMap
from feed.model.posting import PostingIn

# Bytes: what a server takes for one posting, and what one request of ours holds (a server takes 32 MiB).
_LARGEST_POSTING = 1024 * 1024
_LARGEST_BATCH = 8 * 1024 * 1024
# Bytes of postings that --sync keeps in memory until it has seen all of them.
_LARGEST_SYNC = 512 * 1024 * 1024
# Seconds, at most, before the first retry; it doubles from there.
_RETRY = 1.0
_INTERRUPTED = 130

T = TypeVar("T")


class SyncRefused(FeedError):
    """The input cannot be what the whole of a source is now; nothing was written and nothing closed."""


@dataclass(slots=True)
class Tally:
    """What has happened so far, in records."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    skipped: int = 0
    closed: int | None = None
    """Of postings that are absent from the input; None: nobody asked for that."""

    @property
    def accepted(self) -> int:
        """Records that were written, or stood there as they are."""
        return self.created + self.updated + self.unchanged

    def __str__(self) -> str:
        skipped = f", {self.skipped:,} skipped" if self.skipped else ""
        return (
            f"{self.created:,} created, {self.updated:,} updated, {self.unchanged:,} unchanged, "
            f"{self.rejected:,} rejected{skipped}"
        ) + ("" if self.closed is None else f", {self.closed:,} closed")


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
    sync: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="The input is all that SOURCE has now: close its open postings that are not in it.",
        ),
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

    With --sync SOURCE the input is taken for the whole of that source: what is in it is written, and then every
    posting of the source that was open before and is not in it is closed. All of the input is checked first. If
    any record is bad, comes from another source, or if there is none at all, nothing is written and nothing
    closed. Nothing is closed either unless everything has been written. A record without source gets SOURCE. A
    posting that was closed and is in the input again is opened again, unless its record says closed_at.

    \b
    Examples:
      feed post jobs.ndjson
      scraper | feed post - --url https://jobs.example.org
      feed post listings.json --map simplify.toml
      feed post listings.json --map simplify.toml --sync simplify
      feed post jobs.json --database-url postgresql://localhost/jobs

    \b
    Exit codes:
      0    everything was written
      1    some records were rejected (the others were written; with --sync, none), or the server refused
      2    the command, the file or the mapping is wrong
      3    the server or the database cannot be reached (run again to go on)
      130  interrupted (run again to go on)
    """
    if url and database_url:
        raise typer.BadParameter("--url and --database-url name two targets: give one of them.")
    if sync is not None and not sync.strip():
        raise typer.BadParameter("--sync needs the name of a source.")
    mapping = RecordMap.load(map_file) if map_file else None
    run = Run(mapping, batch, retries, sync)
    try:
        with _open(file) as source:
            asyncio.run(run.post(RecordReader(source.fileno()), open_target(url, database_url, key)))
    except FeedError:
        run.report.conclude(accepted=run.tally.accepted)
        say(f"stopped: {run.tally}")
        raise
    except KeyboardInterrupt:
        run.report.conclude(accepted=run.tally.accepted)
        say(f"interrupted: {run.tally}; the same command goes on from there")
        raise typer.Exit(_INTERRUPTED) from None
    run.report.conclude(accepted=run.tally.accepted)
    print(run.tally)
    if run.tally.rejected:
        raise typer.Exit(Exit.FAILED)


class Run:
    """One run of `feed post`: from records to written batches."""

    def __init__(self, mapping: RecordMap | None, size: int, retries: int, sync: str | None = None) -> None:
        self.tally = Tally()
        self.report = FaultReport(mapped=mapping is not None)
        self._mapping = mapping
        self._size = size
        self._retries = retries
        self._sync = sync
        self._backoff = Backoff()

    async def post(self, records: RecordReader, opened: AbstractAsyncContextManager[Target]) -> None:
        """Write all `records` to the target; raises what keeps it from going on."""
        with _progress() as progress:
            bar = progress.add_task("posting", total=records.total, tally="")

            def show() -> None:
                progress.update(bar, completed=records.done, tally=str(self.tally))

            if self._sync is not None:
                await self._synchronize(self._sync, await self._whole(records), opened, show)
                return
            async with opened as target:
                async for batch in self._batches(self._prepared(records)):
                    await self._write(batch, target)
                    show()

    async def _whole(self, records: RecordReader) -> list[Prepared]:
        """Return all postings of the input; raises SyncRefused if it cannot be the whole of a source."""
        found: list[Prepared] = []
        size = 0
        async for prepared in self._prepared(records):
            if prepared is None:
                continue
            size += len(prepared.json)
            if size > _LARGEST_SYNC:
                raise SyncRefused(f"The input is over {_LARGEST_SYNC >> 20} MiB, which is more than --sync can hold.")
            if faults := self._faults(prepared):
                self._reject(prepared.place, faults)
            found.append(prepared)
        if self.tally.rejected:
            raise SyncRefused(
                "Nothing was written and nothing closed, because --sync needs every record to be good. "
                "Correct the input, or post it without --sync."
            )
        if not found:
            raise SyncRefused(
                "Nothing was closed, because there is no posting in the input: --sync would close all of the source."
            )
        return found

    def _faults(self, prepared: Prepared) -> Sequence[Fault]:
        """Return what a server would say against a posting, or what says that it is not of the source."""
        if prepared.key[0] != self._sync:
            return [Fault("source", f"is {prepared.key[0]!r}, and --sync is for {self._sync!r}")]
        try:
            validated([prepared.json])
        except Invalid as error:
            return error.faults
        return ()

    async def _synchronize(
        self, source: str, whole: list[Prepared], opened: AbstractAsyncContextManager[Target], show: Callable[[], None]
    ) -> None:
        """Write `whole`, then close the postings of `source` that were open before and are not in it.

        What others post meanwhile is left alone: only what was open before the first write is closed.
        """
        self.tally.closed = 0
        kept = {prepared.key[1] for prepared in whole}
        async with opened as target:
            before = await self._persist(lambda: target.open_postings(source))
            async for batch in self._batches(_each(whole)):
                await self._write(batch, target)
                show()
            if self.tally.rejected:
                raise SyncRefused("Nothing was closed, because the server has refused some of the records.")
            for job in (job for job, name in before.items() if name not in kept):
                await self._close(job, target)
                self.tally.closed += 1
                show()

    async def _close(self, job: int, target: Target) -> None:
        await self._persist(lambda: target.close(job))

    async def _prepared(self, records: RecordReader) -> AsyncIterator[Prepared | None]:
        """Yield the postings of the records that are not rejected or skipped, and None where a pipe pauses."""
        async for record in records:
            prepared = self._prepare(record) if record else None
            if prepared or not record:
                yield prepared

    async def _batches(self, postings: AsyncIterator[Prepared | None]) -> AsyncIterator[list[Prepared]]:
        """Yield batches, bounded in postings and bytes, none with a posting twice; at once on a pause."""
        batch: dict[tuple[str, str], Prepared] = {}
        size = 0
        async for prepared in postings:
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
        if self._sync is not None and posting.get("source") is None:
            posting = {**posting, "source": self._sync}
        try:
            external_id = posting.get("external_id")
            if external_id is None:
                external_id = name_by_content(posting)
            given = {**posting, "external_id": external_id}
            if self._sync is not None and "closed_at" not in posting and not _is_over(posting.get("valid_through")):
                given["closed_at"] = None  # what is in the input is open, also where it was closed for being absent
            text = orjson.dumps(given)
        except orjson.JSONEncodeError as error:
            self._reject(record.place, [Fault("record", str(error))])
            return None
        if len(text) > _LARGEST_POSTING:
            self._reject(record.place, [Fault("record", f"is over {_LARGEST_POSTING >> 20} MiB")])
            return None
        source = posting.get("source", PostingIn.model_fields["source"].default)
        return Prepared(record.place, (str(source), str(external_id)), text)

    async def _write(self, batch: list[Prepared], target: Target) -> None:
        """Write `batch`, again and again without the records that are refused by name."""
        while batch:
            try:
                counts = await self._persist(partial(target.write, batch))
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

    async def _persist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` returns, trying again while the target cannot be had."""
        failures = 0
        while True:
            try:
                return await call()
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
        self.report.tell(place, faults)


def _is_over(valid_through: object) -> bool:
    """Whether a posting ended at this time (RFC 3339), so that opening it again would only have it expire again."""
    try:
        return datetime.fromisoformat(str(valid_through)) <= datetime.now(UTC)
    except (ValueError, TypeError):  # no time, or one without a zone, which is refused where it is checked
        return False


async def _each(postings: Iterable[Prepared]) -> AsyncIterator[Prepared | None]:
    for prepared in postings:
        yield prepared


def name_by_content(posting: dict[str, Any]) -> str:
    """Return an external id made of what the posting says: the same content, the same id."""
    content = {name: value for name, value in posting.items() if name != "external_id"}
    canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return f"sha256-{hashlib.sha256(canonical).hexdigest()[:20]}"


def _open(file: str) -> BinaryIO:
    try:
        return open(0, "rb", 0, closefd=False) if file == "-" else Path(file).open("rb", 0)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error


def _progress() -> Progress:
    """Return a progress bar on stderr, which shows only on a terminal."""
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[tally]}"), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
