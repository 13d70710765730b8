"""A page of a list: how the list is sorted, where the page lies in it, and the marks by which clients ask for the next."""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

Sort: TypeAlias = Literal["arrived", "posted"]
"""The newest first: by the order in which postings were first written, or by their `posted_at`."""

_ARRIVED = re.compile(r"j([0-9]{1,19})\Z")
_POSTED = re.compile(r"p(-?[0-9]{1,19})\.([0-9]{1,19})\Z")
_LARGEST = 2**63 - 1
_DAY = 86_400_000_000
_FIRST_DAY, _LAST_DAY = -2_440_000, 106_700_000
"""The days that Postgres can tell, rounded inwards, counted from 1970."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The place of a posting in a list: its id, and in a list by `posted_at` that time, in microseconds since 1970."""

    id: int
    posted_at: int | None = None

    def __str__(self) -> str:
        return f"j{self.id}" if self.posted_at is None else f"p{self.posted_at}.{self.id}"

    @property
    def day(self) -> int:
        """Whole days from 1970 to `posted_at`."""
        return (self.posted_at or 0) // _DAY

    @property
    def second(self) -> float:
        """Seconds from the beginning of that day."""
        return (self.posted_at or 0) % _DAY / 1_000_000


def parse_mark(text: str, sort: Sort) -> Mark | None:
    """Return the mark that `text` spells in a list with this order, or None where it spells none."""
    if sort == "arrived":
        arrived = _ARRIVED.match(text)
        mark = None if arrived is None else Mark(int(arrived[1]))
    else:
        posted = _POSTED.match(text)
        mark = None if posted is None else Mark(int(posted[2]), int(posted[1]))
    if mark is None or mark.id > _LARGEST or not _FIRST_DAY <= mark.day <= _LAST_DAY:
        return None
    return mark


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted: `limit` postings right after a mark, right before one, or the first ones."""

    open: bool | None = True
    """Open postings, closed ones, or both (None)."""
    sort: Sort = "arrived"
    after: Mark | None = None
    before: Mark | None = None
    limit: int = 50
    count: bool = False
    """Whether to say about how many postings the whole list has."""
