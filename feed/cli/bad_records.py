"""The records that `feed post --skip-bad` did not write: a file of NDJSON that says what is wrong with each."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import orjson

from feed.errors import ConfigurationError, Fault, FeedError


class Unwritable(FeedError):
    """The file of the bad records could not be written on, as when the disk is full."""


class BadRecords:
    """Writes `{"line": 3, "faults": [{"field", "message"}], "record": ...}` for each bad record, as they come.

    Of an array it is `item` instead of `line`. The file is replaced by each run; there is none where no record was bad.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None
        self._empty = True

    def __enter__(self) -> Self:
        try:
            self._file = self.path.open("wb", 0)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write {self.path}: {error.strerror}. Name another file for the bad records with --bad"
            ) from error
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
        if self._empty and self.path.is_file():
            self.path.unlink()

    def add(self, place: str, faults: Iterable[Fault], record: bytes) -> None:
        """Add the record at `place` ("line 3"), as JSON; raises Unwritable."""
        unit, _, number = place.partition(" ")
        line = {
            unit: int(number),
            "faults": [{"field": fault.field, "message": fault.message} for fault in faults],
            "record": orjson.Fragment(record),
        }
        if self._file is None:
            raise Unwritable(f"{self.path} is not open")
        try:
            self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            raise Unwritable(f"cannot write {self.path}: {error.strerror}") from error
        self._empty = False
