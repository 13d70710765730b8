"""Lists: pages of postings that match a filter, and about how many there are."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import asyncpg

from feed.database.connect import translated
from feed.database.listing import Statement
from feed.errors import DatabaseUnavailable
from feed.model.filter import EVERYTHING, Filter
from feed.model.page import Mark, Page

_WAIT = 5.0
"""Seconds that a list waits for its turn."""
_GLANCE = 2_000
"""Postings that every list looks at first: about 2 ms."""
_WALK = {"arrived": 30_000, "posted": 10_000}
"""Postings that are looked at where a glance found some, but too few: about 10 ms. By `posted_at`, they lie scattered."""
_SAMPLE = 30_000
"""Postings of which those that match are counted."""
_GATHER = 2_000
"""Postings that are fetched by their lexemes at first. They lie scattered: about 20 ms where they are not in memory."""
_FREQUENT = 3
"""Postings in a glance from which on a filter is taken for a frequent one."""
_COUNTED = 5_000
"""Postings that are counted one by one at most."""
_SURE = 30
"""Postings in a walk from which on their number in the whole list is reckoned from it."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a list: postings as JSON, and the log's place that the same read saw."""

    jobs: list[bytes]
    next: Mark | None
    """The page's last posting; None where the list ends with it."""
    previous: Mark | None
    """The page's first posting; None where the list is known to begin with it."""
    epoch: int
    head: int
    about: int | None = None
    """How many postings the whole list has: exact up to a few thousand, beyond that an estimate or a lower bound. None where
    nobody asked, or the index cannot be used."""


class Lists:
    """Reads lists from Postgres. Raises DatabaseUnavailable while that is away, or too many lists are being read.

    A list that is not found at a glance waits in a second, narrower lane, so that those which search long do not hold up the
    others.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        size = max(1, pool.get_max_size() // 2)  # some connections are left for replay and writes
        self._quick = asyncio.Semaphore(size)
        self._slow = asyncio.Semaphore(max(1, size // 2))

    async def read(self, wanted: Filter, page: Page) -> Listing:
        """Return a page of the postings that match, the newest first.

        One statement, one snapshot: every change that the page does not show comes after `head`.
        """
        wanted = replace(wanted, event=(), backfill=True)  # which say something of events alone
        listing = _listing(await self._rows(wanted, page), page)
        if page.count:
            listing = replace(listing, about=await self._about(wanted, page))
        return listing

    async def _rows(self, wanted: Filter, page: Page) -> Sequence[Any]:
        if wanted == EVERYTHING and page.sort == "arrived":
            async with self._turn(self._quick):
                return await self._fetch(Statement(wanted, page).scan())
        async with self._turn(self._quick):
            rows = await self._fetch(Statement(wanted, page).walk(_GLANCE))
        if _settled(rows, page, _GLANCE):
            return rows
        async with self._turn(self._slow):
            frequent = rows[0]["usable"] and rows[0]["size"] >= _FREQUENT
            steps = ("walk", "gather all") if frequent else ("gather some", "walk", "gather all")
            for step in steps:
                if not rows[0]["usable"]:
                    break
                statement = Statement(wanted, page)
                if step == "walk":
                    rows = await self._fetch(statement.walk(_WALK[page.sort]))
                    if _settled(rows, page, _WALK[page.sort]):
                        return rows
                elif step == "gather some":
                    rows = await self._fetch(statement.gather_some(_GATHER))
                    if rows[0]["usable"] and rows[0]["size"] < _GATHER:
                        return rows
                else:
                    rows = await self._fetch(statement.gather())
                    if rows[0]["usable"]:
                        return rows
            return await self._fetch(Statement(wanted, page).scan())

    async def _about(self, wanted: Filter, page: Page) -> int | None:
        page = replace(page, sort="arrived", after=None, before=None)
        async with self._turn(self._slow):
            row = (await self._fetch(Statement(wanted, page).count_first(_SAMPLE)))[0]
            if not row["usable"]:
                return None
            total = _total(row, page)
            if wanted == EVERYTHING:
                return int(total - row["stale"] + row["fresh"])
            if total <= _SAMPLE:
                return int(row["size"] + row["fresh"])
            if row["size"] >= _SURE:
                return _rounded(int(row["size"] / _SAMPLE * total))
            row = (await self._fetch(Statement(wanted, page).count_gathered(_COUNTED)))[0]
            return int(row["size"] + row["fresh"]) if row["usable"] else None

    async def _fetch(self, statement: Statement) -> Sequence[Any]:
        with translated():
            return await self._pool.fetch(statement.sql, *statement.arguments)

    @asynccontextmanager
    async def _turn(self, lane: asyncio.Semaphore) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(_WAIT):
                await lane.acquire()
        except TimeoutError:
            raise DatabaseUnavailable("too many lists are being read now: try again in a few seconds") from None
        try:
            yield
        finally:
            lane.release()


def _settled(rows: Sequence[Any], page: Page, walked: int) -> bool:
    """Whether a walk over so many postings has found the page, or has seen all postings there are."""
    row = rows[0]
    return bool(row["usable"] and (row["size"] > page.limit or _total(row, page) <= walked))


def _total(row: Any, page: Page) -> int:
    return int((row["opened"] if page.open is not False else 0) + (row["closed"] if page.open is not True else 0))


def _rounded(number: int) -> int:
    """Return a number with its two leading digits."""
    return round(number, 2 - len(str(number)))


def _listing(rows: Sequence[Any], page: Page) -> Listing:
    found = [row for row in rows if row["id"] is not None]
    more = len(found) > page.limit
    shown = found[: page.limit]
    backwards = page.before is not None
    if backwards:
        shown.reverse()
    first, last = (_mark(shown[0], page), _mark(shown[-1], page)) if shown else (None, None)
    return Listing(
        jobs=[row["job"].encode() for row in shown],
        next=last if more or backwards else None,
        previous=first if (more if backwards else page.after is not None) else None,
        epoch=rows[0]["epoch"],
        head=rows[0]["head"],
    )


def _mark(row: Any, page: Page) -> Mark:
    return Mark(row["id"], None if page.sort == "arrived" else int(row["micros"]))
