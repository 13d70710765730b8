"""One run of `feed post`: from records to written batches, with what was rejected and what is tried again."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from feed.cli.bad_records import BadRecords
from feed.cli.faults import FaultReport
from feed.cli.messages import say
from feed.cli.preparation import Preparation, Rejected
from feed.cli.record_reader import Record, RecordReader
from feed.cli.tally import Tally
from feed.cli.target import Prepared, Target, faults_in
from feed.client import Backoff, Refused, Unavailable
from feed.errors import DatabaseUnavailable, Fault, FeedError, Invalid, WrittenElsewhere
from feed.model.mapping import RecordMap

# Bytes of what one request of ours holds, with the records that it was made of (a server takes 32 MiB).
_LARGEST_BATCH = 8 * 1024 * 1024
# Bytes of postings that --sync keeps in memory until it has seen all of them.
_LARGEST_SYNC = 512 * 1024 * 1024
# Seconds, at most, before the first retry; it doubles from there.
_RETRY = 1.0
# Records between two looks at how far the check of a file has come.
_SHOWN_EACH = 500

T = TypeVar("T")


class InputRefused(FeedError):
    """The input has bad records, and --skip-bad was not given."""


class SyncRefused(FeedError):
    """--sync closed nothing: the input cannot be the complete list of its source, or the server refused some of it."""


class PostRun:
    """One run of `feed post`: from records to written batches.

    Without `bad` a bad record ends the run. With it, bad records are added there and the others are written.
    """

    def __init__(
        self, mapping: RecordMap | None, size: int, retries: int, sync: str | None = None, bad: BadRecords | None = None
    ) -> None:
        self.tally = Tally()
        self.report = FaultReport(mapped=mapping is not None)
        self._preparation = Preparation(mapping, sync, keep=bad is not None)
        self._size = size
        self._retries = retries
        self._sync = sync
        self._bad = bad
        self._backoff = Backoff()
        self._spared: set[str] = set()
        self._nameless = 0
        """External ids of bad records, whose postings --sync leaves open, and how many have none that can be read."""

    async def post(self, records: RecordReader, opened: AbstractAsyncContextManager[Target]) -> None:
        """Write all `records` to the target; raises what keeps it from going on."""
        with _progress() as progress:
            bar = progress.add_task("posting", total=records.total, tally="")

            def show() -> None:
                progress.update(bar, completed=records.done, tally=str(self.tally))

            if self._sync is not None:
                await self._synchronize(self._sync, await self._whole(records), opened, show)
                return
            if self._bad is None and records.can_rewind:
                await self._check(records, show)
                records.rewind()
            async with opened as target:
                async for batch in self._batches(self._prepared(records)):
                    await self._write(batch, target)
                    show()

    async def _check(self, records: RecordReader, show: Callable[[], None]) -> None:
        """Read all `records` and write nothing; raises InputRefused if any is bad."""
        number = 0
        async for record in records:
            prepared = self._prepare(record) if record else None
            if prepared and (faults := faults_in(prepared)):
                self._reject(prepared.place, faults)
            number += 1
            if number % _SHOWN_EACH == 0:
                show()
        if self.tally.rejected:
            raise InputRefused(
                "Nothing was written, because the input has bad records. "
                "Correct them, or write the others with --skip-bad."
            )
        self.tally = Tally()

    async def _whole(self, records: RecordReader) -> list[Prepared]:
        """Return all postings of the input; raises SyncRefused if it cannot be the complete list of the source."""
        found: list[Prepared] = []
        size = 0
        async for record in records:
            prepared = self._prepare(record) if record else None
            if prepared is None:
                continue
            size += prepared.size
            if size > _LARGEST_SYNC:
                raise SyncRefused(f"The input is over {_LARGEST_SYNC >> 20} MiB, which is more than --sync can hold.")
            if faults := self._foreign(prepared) or faults_in(prepared):
                self._set_aside(prepared, faults)
            else:
                found.append(prepared)
        if self.tally.rejected and self._bad is None:
            raise SyncRefused(
                "Nothing was written or closed, because the input has bad records. "
                "Correct them, or write the others with --skip-bad."
            )
        if not found:
            raise SyncRefused(
                f"Nothing was closed, because the input has no {'good ' if self._bad else ''}postings: "
                "--sync would close every posting of the source."
            )
        return found

    def _foreign(self, prepared: Prepared) -> Sequence[Fault]:
        """Return the fault of a posting that belongs to another source than the one of --sync."""
        if prepared.key[0] == self._sync:
            return ()
        return [Fault("source", f"is {prepared.key[0]!r}, and --sync is for {self._sync!r}")]

    async def _synchronize(
        self, source: str, whole: list[Prepared], opened: AbstractAsyncContextManager[Target], show: Callable[[], None]
    ) -> None:
        """Write `whole`, then close the postings of `source` that were open before and are not in the input.

        What others post meanwhile is left alone: only what was open before the first write is closed.
        """
        self.tally.closed = 0
        kept = self._spared | {prepared.key[1] for prepared in whole}
        async with opened as target:
            before = await self._persist(lambda: target.open_postings(source))
            async for batch in self._batches(_each(whole)):
                await self._write(batch, target)
                show()
            if self.tally.rejected and self._bad is None:
                raise SyncRefused("Nothing was closed, because the server has refused some of the records.")
            if self._nameless:
                say(
                    f"Nothing was closed, because no external_id could be read in {self._nameless:,} of the bad records: "
                    "each may stand for any open posting."
                )
                return
            for job in (job for job, name in before.items() if name not in kept):
                await self._close(job, target)
                self.tally.closed += 1
                show()

    async def _close(self, job: int, target: Target) -> None:
        await self._persist(lambda: target.close(job))

    async def _prepared(self, records: RecordReader) -> AsyncIterator[Prepared | None]:
        """Yield the postings of the records that are not rejected or skipped, and None where a pipe pauses.

        Without --skip-bad, raises InputRefused at the first bad record.
        """
        async for record in records:
            prepared = self._prepare(record) if record else None
            self._go_on()
            if prepared or not record:
                yield prepared

    def _prepare(self, record: Record) -> Prepared | None:
        """Return the posting that `record` stands for; None when it was rejected or skipped."""
        try:
            prepared = self._preparation.prepare(record)
        except Rejected as error:
            self._spare(error.external_id)
            self._reject(record.place, error.faults, record.json if self._bad else b"")
            return None
        if prepared is None:
            self.tally.skipped += 1
        return prepared

    async def _batches(self, postings: AsyncIterator[Prepared | None]) -> AsyncIterator[list[Prepared]]:
        """Yield batches of bounded count and bytes, without repeating a posting; None ends a batch early."""
        batch: dict[tuple[str, str], Prepared] = {}
        size = 0
        async for prepared in postings:
            full = len(batch) == self._size or (prepared and size + prepared.size > _LARGEST_BATCH)
            if batch and (full or not prepared or prepared.key in batch):
                yield list(batch.values())
                batch, size = {}, 0
            if prepared:
                batch[prepared.key] = prepared
                size += prepared.size
        if batch:
            yield list(batch.values())

    async def _write(self, batch: list[Prepared], target: Target) -> None:
        """Write `batch`; as long as the target refuses individual records, reject those and write the rest."""
        while batch:
            try:
                counts = await self._persist(partial(target.write, batch))
            except (Invalid, Refused, WrittenElsewhere) as error:
                faults_of_all = () if isinstance(error, WrittenElsewhere) else error.faults
                bad = {fault.index for fault in faults_of_all if fault.index is not None}
                if not bad and self._bad is not None and _concerns_records(error):
                    await self._search(batch, target, error, faults_of_all)
                    return
                if not bad:
                    raise
                for index in sorted(bad):
                    faults = [fault for fault in faults_of_all if fault.index == index]
                    self._reject(batch[index].place, faults, batch[index].record)
                self._go_on()
                batch = [prepared for index, prepared in enumerate(batch) if index not in bad]
            else:
                self.tally.created += counts.created
                self.tally.updated += counts.updated
                self.tally.unchanged += counts.unchanged
                return

    async def _search(self, batch: list[Prepared], target: Target, error: FeedError, faults: Sequence[Fault]) -> None:
        """Find the bad records of a batch that was refused without naming them, by halves, and write the others."""
        if len(batch) == 1:
            self._reject(batch[0].place, faults or [Fault("record", str(error))], batch[0].record)
            return
        half = len(batch) // 2
        await self._write(batch[:half], target)
        await self._write(batch[half:], target)

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

    def _set_aside(self, prepared: Prepared, faults: Sequence[Fault]) -> None:
        """Reject a posting of --sync, which keeps the one it stands for open."""
        is_named = prepared.named and not any(fault.field == "external_id" for fault in faults)
        self._spare(prepared.key[1] if is_named else None)
        self._reject(prepared.place, faults, prepared.record)

    def _spare(self, external_id: str | None) -> None:
        """Remember the posting of a bad record, so that --sync does not close it."""
        if external_id is None:
            self._nameless += 1
        elif self._sync is not None:
            self._spared.add(external_id)

    def _reject(self, place: str, faults: Sequence[Fault], record: bytes = b"") -> None:
        """Report what is wrong with a record, and count it as rejected; `record` is its JSON for the report."""
        self.tally.rejected += 1
        self.report.tell(place, faults)
        if self._bad is not None:
            self._bad.add(place, faults, record)

    def _go_on(self) -> None:
        """Raise InputRefused if a record was rejected, and the others are not to be written for that."""
        if self.tally.rejected and self._bad is None and self._sync is None:
            raise InputRefused(
                "The input has bad records, and nothing was written from there on. "
                "Correct them, or write the others with --skip-bad."
            )


def _concerns_records(error: FeedError) -> bool:
    """Whether some of the records were refused, and not the writer or the request."""
    return (
        error.status in (409, 413, 422) if isinstance(error, Refused) else isinstance(error, Invalid | WrittenElsewhere)
    )


async def _each(postings: Iterable[Prepared]) -> AsyncIterator[Prepared | None]:
    for prepared in postings:
        yield prepared


def _progress() -> Progress:
    """Return a progress bar on stderr, which shows only on a terminal."""
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[tally]}"), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
