"""One run of `feed post`: from records to written batches, with what was rejected and what is tried again."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from feed.cli.faults import FaultReport
from feed.cli.messages import say
from feed.cli.record_reader import Record, RecordReader
from feed.cli.target import Prepared, Target, validated
from feed.client import Backoff, Refused, Unavailable
from feed.errors import DatabaseUnavailable, Fault, FeedError, Invalid
from feed.model.mapping import RecordMap
from feed.model.posting import PostingIn

# Bytes: what a server takes for one posting, and what one request of ours holds (a server takes 32 MiB).
_LARGEST_POSTING = 1024 * 1024
_LARGEST_BATCH = 8 * 1024 * 1024
# Bytes of postings that --sync keeps in memory until it has seen all of them.
_LARGEST_SYNC = 512 * 1024 * 1024
# Seconds, at most, before the first retry; it doubles from there.
_RETRY = 1.0

T = TypeVar("T")


class SyncRefused(FeedError):
    """--sync closed nothing: the input cannot be the complete list of its source, or the server refused some of it."""


@dataclass(slots=True)
class Tally:
    """What has happened so far, in records."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    skipped: int = 0
    closed: int | None = None
    """Postings that --sync closed because they are not in the input; None without --sync."""

    @property
    def accepted(self) -> int:
        """Records that were written, or were there already without a difference."""
        return self.created + self.updated + self.unchanged

    def __str__(self) -> str:
        skipped = f", {self.skipped:,} skipped" if self.skipped else ""
        return (
            f"{self.created:,} created, {self.updated:,} updated, {self.unchanged:,} unchanged, "
            f"{self.rejected:,} rejected{skipped}"
        ) + ("" if self.closed is None else f", {self.closed:,} closed")


class PostRun:
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
        """Return all postings of the input; raises SyncRefused if it cannot be the complete list of the source."""
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
                "Nothing was written or closed, because --sync accepts no bad records. "
                "Correct the input, or post it without --sync."
            )
        if not found:
            raise SyncRefused(
                "Nothing was closed, because the input has no postings: --sync would close every posting of the source."
            )
        return found

    def _faults(self, prepared: Prepared) -> Sequence[Fault]:
        """Return why a server would refuse a posting, or that it belongs to another source; nothing if it is good."""
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
        """Yield batches of bounded count and bytes, without repeating a posting; None ends a batch early."""
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
                given["closed_at"] = None  # reopens a posting that an earlier --sync closed because it was missing
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
        """Write `batch`; as long as the target refuses individual records, reject those and write the rest."""
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
        """Report what is wrong with a record, and count it as rejected."""
        self.tally.rejected += 1
        self.report.tell(place, faults)


def _is_over(valid_through: object) -> bool:
    """Whether this time (RFC 3339) is past: a posting reopened with it would expire again at once."""
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


def _progress() -> Progress:
    """Return a progress bar on stderr, which shows only on a terminal."""
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[tally]}"), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
