"""Reading records from a file or a pipe: NDJSON line by line in bounded memory, or one JSON document."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from feed.errors import FeedError

# Bytes.
_CHUNK = 256 * 1024
_LONGEST_LINE = 8 * 1024 * 1024
_LARGEST_DOCUMENT = 512 * 1024 * 1024
_SHOWN = 64 * 1024
# Seconds without input after which a pipe is said to pause.
_PAUSE = 0.2


class UnreadableInput(FeedError):
    """The input as a whole cannot be read as JSON or NDJSON."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record: `place` is where it stands ("line 3", "item 3"), `fault` says why it has no `value`.

    `text` is what stands there: the line, or JSON of an item that is no object.
    """

    place: str
    value: dict[str, Any] | None
    fault: str = ""
    text: bytes = field(default=b"", compare=False)

    @property
    def json(self) -> bytes:
        """The record as JSON; a line that is none is a text, and is cut off after 64 KiB."""
        if self.value is not None:
            return self.text.strip() or orjson.dumps(self.value)
        if len(self.text) <= _LONGEST_LINE:
            try:
                orjson.loads(self.text)
            except orjson.JSONDecodeError:
                pass
            else:
                return self.text.strip()
        return orjson.dumps(self.text[:_SHOWN].decode(errors="replace"))


class RecordReader:
    """The records in an open file or pipe, by its descriptor; to be iterated once, or again after `rewind`.

    None stands between them when a pipe has nothing more for the moment. `done` of `total` is how far the
    reading has come, in bytes; `total` is None for a pipe.
    """

    def __init__(self, fd: int) -> None:
        file = os.fstat(fd)
        self._fd = fd
        self._regular = stat.S_ISREG(file.st_mode)
        self._buffer = bytearray()
        self._ended = False
        self._read = 0
        self._start = os.lseek(fd, 0, os.SEEK_CUR) if self._regular else None
        self.total = file.st_size if self._regular else None

    @property
    def done(self) -> int:
        """How much has been read and handed on, in bytes."""
        return self._read - len(self._buffer)

    @property
    def can_rewind(self) -> bool:
        """Whether it can be read twice: a file can, a pipe cannot."""
        return self._start is not None

    def rewind(self) -> None:
        """Go back to the first record of a file; call it only where `can_rewind`."""
        if self._start is None:
            raise UnreadableInput("a pipe can be read only once")
        os.lseek(self._fd, self._start, os.SEEK_SET)
        self._buffer.clear()
        self._ended = False
        self._read = 0

    async def __aiter__(self) -> AsyncIterator[Record | None]:
        opening = await self._opening()
        if opening and opening[:1] not in b"[{":
            raise UnreadableInput("the input is neither JSON nor NDJSON: its first character must be [ or {")
        if opening.startswith(b"[") or _is_cut_short(opening):
            records = await self._document()
            if records is not None:
                for place, value in enumerate(records, 1):
                    yield _record(f"item {place}", value)
                return
        number = 0
        async for line in self._lines():
            if line is None:
                yield None
                continue
            number += 1
            if line.strip():
                yield _parse(f"line {number}", line)

    async def _opening(self) -> bytes:
        """Return the first line that is not blank, or enough of it to tell what comes; it stays unread."""
        while True:
            self._buffer = self._buffer.removeprefix(b"\xef\xbb\xbf")
            text = self._buffer.lstrip()
            if self._ended or text.startswith(b"[") or b"\n" in text or len(text) > _LONGEST_LINE:
                return bytes(text.partition(b"\n")[0].rstrip())
            await self._fill()

    async def _document(self) -> list[Any] | None:
        """Return the records of one JSON document; None if it is rather NDJSON whose first line is broken."""
        while not self._ended:
            if len(self._buffer) > _LARGEST_DOCUMENT:
                raise UnreadableInput(
                    f"a JSON document may have {_LARGEST_DOCUMENT >> 20} MiB; beyond that, put one record on "
                    "a line: jq -c '.[]' FILE | feed post -"
                )
            await self._fill()
        try:
            document = orjson.loads(self._buffer)
        except orjson.JSONDecodeError as error:
            if self._buffer.lstrip().startswith(b"{"):
                return None
            raise UnreadableInput(f"the input is not valid JSON: {error}") from error
        self._buffer.clear()
        return document if isinstance(document, list) else [document]

    async def _lines(self) -> AsyncIterator[bytes | None]:
        """Yield lines without their ends, of one that is too long the start, and None when a pipe pauses."""
        searched = 0
        while not (self._ended and not self._buffer):
            end = self._buffer.find(b"\n", searched)
            if end < 0 and not self._ended:
                if len(self._buffer) > _LONGEST_LINE:
                    self._read -= len(self._buffer) - _LONGEST_LINE - 1
                    del self._buffer[_LONGEST_LINE + 1 :]
                searched = len(self._buffer)
                if not await self._is_readable(_PAUSE):
                    yield None
                    await self._is_readable(None)
                await self._fill()
                continue
            end = len(self._buffer) if end < 0 else end
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            searched = 0
            yield line

    async def _fill(self) -> None:
        """Read on; at the end of the input, note it."""
        await self._is_readable(None)
        chunk = os.read(self._fd, _CHUNK)
        self._buffer += chunk
        self._read += len(chunk)
        self._ended = not chunk

    async def _is_readable(self, patience: float | None) -> bool:
        """Return whether a read would not block, after waiting up to `patience` seconds (None: for ever)."""
        if self._regular:
            return True
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        try:
            loop.add_reader(self._fd, ready.set)
        except PermissionError:  # a device that is always ready, as /dev/null
            return True
        try:
            async with asyncio.timeout(patience):
                await ready.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._fd)
        return True


def _is_cut_short(text: bytes) -> bool:
    """Whether `text` is good JSON as far as it goes, and goes on."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return error.pos >= len(text) > 0
    return False


def _parse(place: str, line: bytes) -> Record:
    if len(line) > _LONGEST_LINE:
        return Record(place, None, f"is longer than {_LONGEST_LINE >> 20} MiB", line)
    try:
        return _record(place, orjson.loads(line), line)
    except orjson.JSONDecodeError as error:
        return Record(place, None, f"is not valid JSON: {error}", line)


def _record(place: str, value: object, text: bytes = b"") -> Record:
    if isinstance(value, dict):
        return Record(place, value, text=text)
    return Record(place, None, "is not a JSON object", text or orjson.dumps(value))
