"""Intake: a request's body is checked posting by posting as it arrives, and what is valid is kept aside.

Nothing is written before the last byte has come, so a slow client holds no transaction open. Memory is bounded: what was
checked waits in batches in a file once it is over a mebibyte.
"""

import asyncio
import tempfile
from array import array
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import IO, Any, Self

import orjson
from fastapi import Request
from pydantic import ValidationError

from feed.database.jobs import Batch, batch_of
from feed.errors import Fault, Invalid, TooLarge, TooSlow
from feed.model.posting import PostingIn, faults_of
from feed.settings.http import RequestSettings

_ROWS = 500
"""Postings in one statement."""
_FAULTS = 100
"""Faults that an answer names."""


class Spool:
    """Batches that are kept aside, in memory or on disk. They can be iterated more than once."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=1024 * 1024)  # noqa: SIM115 (closed by __exit__)
        self.rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()

    def add(self, batch: Batch) -> None:
        """Append a batch."""
        data = batch.json.encode()
        self._file.seek(0, 2)
        self._file.write(b"%d %d\n" % (batch.rows, len(data)))
        self._file.write(data)
        self.rows += batch.rows

    def __iter__(self) -> Iterator[Batch]:
        place = 0
        while True:
            self._file.seek(place)
            head = self._file.readline()
            if not head:
                return
            rows, size = map(int, head.split())
            yield Batch(rows, self._file.read(size).decode())
            place = self._file.tell()


class Intake:
    """Checks postings one by one, and collects their faults and the keys of the valid ones.

    With `skip`, postings that are not valid are left out; otherwise one of them refuses all.
    """

    def __init__(self, spool: Spool, *, skip: bool = False) -> None:
        self.skip = skip
        self.rejected = 0
        """Postings that were not valid; without `skip` it may not count all of them."""
        self.faults: list[Fault] = []
        """The first hundred faults."""
        self._spool = spool
        self._pending: list[PostingIn] = []
        self._keys: dict[tuple[str, str], int] = {}
        self._index = 0
        self._places = array("L")
        """With `skip`: index and line (0: none) of each posting that was kept, one after the other."""

    def take(self, item: Any, line: int | None = None) -> None:
        """Check the next item, which stands on this line."""
        index, self._index = self._index, self._index + 1
        if len(self.faults) >= _FAULTS and not self.skip:
            return
        try:
            posting = check(item, index)
        except Invalid as error:
            self._reject(error.faults, line)
            return
        if posting.key is not None:
            first = self._keys.setdefault(posting.key, index)
            if first != index:
                message = f"is the same as in item {first}: send each posting once"
                self._reject([Fault("external_id", message, index)], line)
                return
        if self.skip or not self.faults:
            self._pending.append(posting)
            if self.skip:
                self._places.extend((index, line or 0))
            if len(self._pending) >= _ROWS:
                self._flush()

    def broken(self, message: str, line: int | None = None) -> None:
        """Note that the next item is not valid JSON."""
        self._reject([Fault("posting", message, self._index)], line)
        self._index += 1

    def oversized(self, bound: int, line: int | None = None) -> None:
        """Note that the next item has more bytes than the bound; raises TooLarge where it cannot be skipped."""
        message = f"has more than {bound:,} bytes"
        if not self.skip:
            raise TooLarge(f"item {self._index} {message}")
        self.broken(message, line)

    def refused(self, faults: Iterable[Fault]) -> None:
        """Note what the database refused of the postings that were kept; `index` counts these."""
        for fault in faults:
            place = 2 * (fault.index or 0)
            index, line = self._places[place : place + 2]
            self._reject([replace(fault, index=index)], line or None)

    def finish(self) -> None:
        """Store the last batch; raises Invalid if any posting was not valid and is not to be skipped."""
        if self.faults and not self.skip:
            raise Invalid(self.faults)
        if self._pending:
            self._flush()

    def _reject(self, faults: Sequence[Fault], line: int | None) -> None:
        self.rejected += 1
        room = _FAULTS - len(self.faults)
        self.faults += [replace(fault, line=line) if self.skip else fault for fault in faults[:room]]

    def _flush(self) -> None:
        self._spool.add(batch_of(self._pending))
        self._pending.clear()


def check(item: Any, index: int | None = None) -> PostingIn:
    """Return the posting in parsed JSON; raises Invalid, which names every bad field."""
    if not isinstance(item, dict):
        raise Invalid([Fault("posting", "must be a JSON object", index)])
    try:
        return PostingIn.model_validate(item)
    except ValidationError as error:
        raise Invalid(faults_of(error, index)) from None


def bounded(item: Any, settings: RequestSettings) -> Any:
    """Return `item`; raises TooLarge if it has more bytes than one posting may have."""
    if len(orjson.dumps(item)) > settings.item_bytes:
        raise TooLarge(f"the posting has more than {settings.item_bytes:,} bytes")
    return item


async def pieces(request: Request, settings: RequestSettings) -> AsyncIterator[bytes]:
    """Yield the body as it arrives; raises TooLarge over the bound, TooSlow if the client stalls or takes too long."""
    announced = request.headers.get("content-length", "0")
    total = 0
    too_large = TooLarge(f"a request may have at most {settings.bytes:,} bytes: split it into several")
    if announced.isdigit() and int(announced) > settings.bytes:
        raise too_large
    body = request.stream()
    now = asyncio.get_running_loop().time
    end = now() + settings.timeout
    while True:
        try:
            async with asyncio.timeout_at(min(now() + settings.body_timeout, end)):
                piece = await anext(body)
        except StopAsyncIteration:
            return
        except TimeoutError:
            if now() >= end:
                raise TooSlow(f"the request did not arrive within {settings.timeout:g} s") from None
            raise TooSlow(f"no data of the request arrived for {settings.body_timeout:g} s") from None
        total += len(piece)
        if total > settings.bytes:
            raise too_large
        yield piece


async def read_json(request: Request, settings: RequestSettings) -> Any:
    """Return a whole JSON body; raises Invalid or TooLarge."""
    body = b"".join([piece async for piece in pieces(request, settings)])
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid([Fault("body", f"must be valid JSON: {error}")]) from None


async def take_array(items: list[Any], intake: Intake, settings: RequestSettings) -> None:
    """Check the items of an array, yielding to the event loop every hundred items."""
    for number, item in enumerate(items):
        if len(orjson.dumps(item)) > settings.item_bytes:
            intake.oversized(settings.item_bytes)
        else:
            intake.take(item)
        if number % 100 == 99:
            await asyncio.sleep(0)
    intake.finish()


async def take_lines(request: Request, intake: Intake, settings: RequestSettings) -> None:
    """Check NDJSON line by line; blank lines are ignored. Of a line that is too long, no more than its bound is held."""
    rest = b""
    number = 0
    too_long = False  # the line that `rest` belongs to, and what has come of it is dropped

    def line(text: bytes) -> None:
        nonlocal number, too_long
        number += 1
        if too_long or len(text) > settings.item_bytes:
            too_long = False
            intake.oversized(settings.item_bytes, number)
        elif text.strip():
            try:
                item = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                intake.broken(f"must be valid JSON: {error}", number)
            else:
                intake.take(item, number)

    async for piece in pieces(request, settings):
        *lines, rest = (rest + piece).split(b"\n")
        for text in lines:
            line(text)
        if len(rest) > settings.item_bytes:
            if not intake.skip:
                intake.oversized(settings.item_bytes)
            too_long = True
        if too_long:
            rest = b""
        await asyncio.sleep(0)
    line(rest)
    intake.finish()
