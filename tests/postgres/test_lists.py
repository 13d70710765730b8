"""Lists: sorted both ways, read both ways, in whatever way their postings are found, and counted."""

import random
from collections.abc import AsyncIterator

import orjson
import pytest

from feed.database import lists
from feed.database.connect import pool
from feed.database.jobs import JobStore
from feed.model.filter import EVERYTHING, Filter, Near
from feed.model.page import Page, Sort
from tests.conftest import make_settings
from tests.postgres.events import Connection, add
from tests.postgres.indexing import index

BAKERS = Filter(q=(" baker",))
SHORT = {"arrived": 0, "posted": 0}


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with pool(make_settings(dsn).database, dsn) as connections:
        yield JobStore(connections)


async def bakers(database: Connection, count: int) -> None:
    """Insert postings, of which every second one matches, with times of which many are equal."""
    dice = random.Random(3)
    for number in range(count):
        await database.execute(
            "INSERT INTO job (title, company, url, posted_at) VALUES ($1, 'a', 'https://a.example', "
            "timestamptz '2026-01-01 00:00:00.123457+00' + make_interval(days => $2))",
            f"Baker {number}" if number % 2 else f"Cook {number}", dice.randrange(count // 4),
        )  # fmt: skip


@pytest.mark.parametrize("sort", ["arrived", "posted"])
@pytest.mark.parametrize("plan", ["scan", "changed", "walk", "gather"])
async def test_pages_forwards_and_backwards_meet_every_posting_once_in_order(
    store: JobStore, database: Connection, dsn: str, sort: Sort, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bakers(database, 46)
    if plan == "scan":
        await database.execute("UPDATE search_state SET filled = 0")
    elif plan != "changed":
        await index(database, dsn)
    if plan == "gather":
        for name, value in {"_GLANCE": 0, "_WALK": SHORT}.items():
            monkeypatch.setattr(lists, name, value)
    order = "id DESC" if sort == "arrived" else "posted_at DESC, id DESC"
    expected = [
        row["id"] for row in await database.fetch(f"SELECT id FROM job WHERE title LIKE 'Baker%' ORDER BY {order}")
    ]
    assert len(expected) == 23

    forwards: list[list[int]] = []
    page = Page(sort=sort, limit=5)
    while True:
        listing = await store.list(BAKERS, page)
        forwards.append([orjson.loads(job)["id"] for job in listing.jobs])
        assert (listing.previous is None) == (len(forwards) == 1)
        if listing.next is None:
            break
        page = Page(sort=sort, limit=5, after=listing.next)
    assert [job for found in forwards for job in found] == expected

    backwards = []
    while listing.previous is not None:
        listing = await store.list(BAKERS, Page(sort=sort, limit=5, before=listing.previous))
        assert listing.next is not None
        backwards.append([orjson.loads(job)["id"] for job in listing.jobs])
    assert backwards[::-1] == forwards[:-1]


async def test_a_list_by_time_sorts_and_pages_over_times_that_a_datetime_cannot_hold(
    store: JobStore, database: Connection, dsn: str
) -> None:
    times = ("4713-01-01 00:00:00+00 BC", "1969-12-31 23:59:59.999999+00", "1970-01-01 00:00:00+00",
             "9999-12-31 23:59:59.999999+00", "294000-12-31 23:59:59.999999+00")  # fmt: skip
    for number, time in enumerate(times):
        await database.execute(
            "INSERT INTO job (title, company, url, posted_at) VALUES ($1, 'a', 'https://a.example', $2::text::timestamptz)",
            f"Baker {number}", time,
        )  # fmt: skip
    await index(database, dsn)
    seen = []
    page = Page(sort="posted", limit=1)
    while True:
        listing = await store.list(BAKERS, page)
        seen += [orjson.loads(job)["title"] for job in listing.jobs]
        if listing.next is None:
            break
        page = Page(sort="posted", limit=1, after=listing.next)
    assert seen == [f"Baker {number}" for number in range(4, -1, -1)]


async def test_a_list_says_about_how_many_there_are(
    store: JobStore, database: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def about(wanted: Filter, open: bool | None = True) -> int | None:
        listing = await store.list(wanted, Page(open=open, limit=1, count=True))
        assert (await store.list(wanted, Page(open=open, limit=1))).about is None
        return listing.about

    assert await about(EVERYTHING) == await about(BAKERS) == 0
    await bakers(database, 40)
    await index(database, dsn)
    await add(database, "Baker of today")
    await database.execute("UPDATE job SET closed_at = now() WHERE title IN ('Baker 1', 'Cook 2', 'Cook 4')")
    await database.execute("UPDATE job SET title = 'Nurse' WHERE title = 'Baker 3'")
    for _ in range(2):
        assert await about(EVERYTHING) == 38
        assert await about(BAKERS) == 19
        assert (await about(EVERYTHING, open=None), await about(BAKERS, open=None)) == (41, 20)
        assert await about(BAKERS, open=False) == 1
        await index(database, dsn)
    with monkeypatch.context() as patch:  # more postings than are looked at
        patch.setattr(lists, "_SAMPLE", 20)
        patch.setattr(lists, "_SURE", 5)
        assert (await about(BAKERS) or 0) in range(15, 30)
        patch.setattr(lists, "_SURE", 50)
        assert await about(BAKERS) == 19
        patch.setattr(lists, "_COUNTED", 7)
        assert await about(BAKERS) == 7
    await database.execute("UPDATE search_state SET filled = 0")
    assert await about(BAKERS) is None


async def test_words_that_are_longer_than_a_lexeme_are_told_apart(
    store: JobStore, database: Connection, dsn: str
) -> None:
    long = "x" * 1500
    await add(database, "a", location=f"{long}1, {long}2")
    await add(database, "b", location=f"{long}1")
    await index(database, dsn)

    async def found(wanted: Filter) -> list[str]:
        return [orjson.loads(job)["title"] for job in (await store.list(wanted, Page())).jobs]

    assert await found(Filter(location=(f" {long}1 ",))) == ["b", "a"]
    assert await found(Filter(location=(f" {long}1 {long}2 ",))) == ["a"]
    assert await found(Filter(location=(f" {long}3 ",))) == []
    assert await found(Filter(q=(f" {long}2",))) == ["a"]
    assert await found(Filter(q=(f" {long}",))) == ["b", "a"]


async def test_quotes_and_backslashes_in_values_are_found(store: JobStore, database: Connection, dsn: str) -> None:
    names = ["O'Neil", "back\\slash", "a & b | !c:*", "'", "\\'", "tab\tnew\nline", " "]
    for number, name in enumerate(names):
        await add(database, str(number), company="x" + name, tags=[name])
    await index(database, dsn)
    for number, name in enumerate(names):
        folded = name.lower()
        for wanted in (Filter(tag=(folded,)), Filter(company=("x" + folded,), near=None)):
            listing = await store.list(wanted, Page())
            assert [orjson.loads(job)["title"] for job in listing.jobs] == [str(number)], wanted


async def test_a_list_around_a_place_beyond_the_date_line_finds_both_sides(
    store: JobStore, database: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lat, lon in ((0.0, 180.0), (0.0, -180.0), (0.05, 179.95), (0.05, -179.95), (0.0, 178.0), (89.99, 0.0)):
        await add(database, f"{lat},{lon}", latitude=lat, longitude=lon)
    await index(database, dsn)
    monkeypatch.setattr(lists, "_GLANCE", 0)
    monkeypatch.setattr(lists, "_WALK", SHORT)
    for centre in (179.99, -179.99):
        listing = await store.list(Filter(near=Near(0.0, centre, 20.0)), Page())
        assert len(listing.jobs) == 4
    pole = await store.list(Filter(near=Near(90.0, 90.0, 20.0)), Page())
    assert len(pole.jobs) == 1
