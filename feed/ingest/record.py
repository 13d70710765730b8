"""A record of a source: an object out of its JSON, read without trust in what stands where."""

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Self

from feed.ingest.adapter import Answer, Malformed
from feed.ingest.body import json_of

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_LONGEST_LINE: Final = 10_000
"""Characters of a line of text that are read, which is more than any field of a posting takes."""
_LONGEST_NUMBER: Final = 40
"""Characters of a number that is sent as a text."""


@dataclass(frozen=True, slots=True)
class Record:
    """A JSON object. Whatever is not of the kind that is asked for counts as not there."""

    fields: dict[str, Any]

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """Return the object that the body of `answer` is. Raises Malformed."""
        found = json_of(answer)
        if not isinstance(found, dict):
            raise Malformed(f"{answer.where}: the body must be a JSON object, and is {kind_of(found)}.")
        return cls(found)

    def at(self, *path: str) -> Any:
        """Return what stands at `path`; None where it leads nowhere."""
        found: Any = self.fields
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    def text(self, *path: str) -> str | None:
        """Return the line of text at `path`, or a number there as text; None where there is nothing else than spaces."""
        return line(self.at(*path))

    def html(self, *path: str) -> str | None:
        """Return the text at `path` with its line breaks."""
        found = self.at(*path)
        return (_UNSTORABLE.sub("", found).strip() or None) if isinstance(found, str) else None

    def number(self, *path: str) -> Decimal | None:
        """Return the finite number at `path`, be it a number or a text of one."""
        return number(self.at(*path))

    def flag(self, *path: str) -> bool:
        """Return whether `true` stands at `path`."""
        return self.at(*path) is True

    def each(self, *path: str) -> list[Any]:
        """Return the list at `path`; an empty one where there is none."""
        found = self.at(*path)
        return found if isinstance(found, list) else []

    def records(self, *path: str) -> "list[Record]":
        """Return the objects in the list at `path`, or the object that stands there alone."""
        found = self.at(*path)
        each = found if isinstance(found, list) else [found]
        return [Record(one) for one in each if isinstance(one, dict)]

    def needed(self, name: str, url: str) -> list[Any]:
        """Return the list in the field `name`, without which an answer from `url` is not from this source.

        Raises Malformed.
        """
        found = self.at(name)
        if not isinstance(found, list):
            raise Malformed(f"{url}: {name} must be a list, and is {kind_of(found)}.")
        return found


def kind_of(value: object) -> str:
    """Return what kind of JSON value `value` is, as a message names it."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "missing or null"}
    return names.get(type(value), "a number")


def line(value: object) -> str | None:
    """Return `value` as one line of text, without what cannot be stored; None where it is no text or number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return " ".join(_UNSTORABLE.sub("", _spelled(value)[:_LONGEST_LINE]).split()) or None


def number(value: object) -> Decimal | None:
    """Return the finite number that `value` is, or that it says as a text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    text = _spelled(value)
    try:
        found = Decimal(text) if len(text) <= _LONGEST_NUMBER else None
    except InvalidOperation:
        return None
    return found if found is not None and found.is_finite() else None


def _spelled(value: str | float | Decimal) -> str:
    try:
        return str(value)
    except ValueError:  # an integer of more digits than Python writes
        return ""
