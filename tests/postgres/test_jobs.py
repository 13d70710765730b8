"""The job store: writes that can be sent again, all or nothing, and lists that fit the log."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
import pytest

from feed.database.connect import pool
from feed.database.jobs import JobStore, Written, batch_of, open_store
from feed.errors import DatabaseUnavailable, Invalid, NotFound
from feed.model.filter import EVERYTHING, Filter
from feed.model.page import Page
from feed.model.posting import PostingIn
from tests.conftest import Connect, make_settings
from tests.postgres.events import Connection, add, advance, advanced, titles
from tests.waiting import until


def posting(number: int, **fields: Any) -> PostingIn:
    row = {
        "source": "s",
        "external_id": str(number),
        "title": f"job {number}",
        "company": "Acme",
        "url": "https://a.example",
    }
    return PostingIn.model_validate(row | fields)


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[JobStore]:
    async with pool(make_settings(dsn).database, dsn) as connections:
        yield JobStore(connections)


async def only(database: Connection) -> Any:
    return await database.fetchrow("SELECT * FROM job")


async def test_a_write_sent_again_changes_nothing_and_makes_no_event(store: JobStore, database: Connection) -> None:
    whole = posting(
        1, location="Zürich", country="CH", workplace="remote", employment_type="full-time", seniority="senior",
        tags=["a", "b"], salary_min="70000.10", salary_max=90000, currency="CHF", salary_period="year",
        description="x\n\u2028y", latitude=47.376888, longitude=8.541694, posted_at="2026-01-01T00:00:00.123456Z",
        valid_through="2036-01-01T00:00:00+02:00",
    )  # fmt: skip
    assert await store.write([whole, posting(2)]) == Written(2, 0, 0)
    assert len(await advanced(database)) == 2
    for _ in range(2):
        assert await store.write([posting(2), whole]) == Written(0, 0, 2)
    assert await store.write([posting(2, title="new"), whole, posting(3)]) == Written(1, 1, 1)
    assert sorted(titles(await advanced(database))) == ["job 3", "new"]


async def test_without_an_external_id_every_write_makes_a_posting(store: JobStore, database: Connection) -> None:
    assert await store.write([posting(1, external_id=None)] * 2) == Written(2, 0, 0)
    assert await store.write([posting(1, external_id=None)]) == Written(1, 0, 0)
    assert len(await advanced(database)) == 3


async def test_the_same_external_id_of_two_sources_is_two_postings(store: JobStore) -> None:
    assert await store.write([posting(1), posting(1, source="other")]) == Written(2, 0, 0)


async def test_postings_are_numbered_in_the_order_they_were_sent(store: JobStore, database: Connection) -> None:
    await store.write([posting(number) for number in (5, 3, 9, 1)])
    assert titles(await advanced(database)) == ["job 5", "job 3", "job 9", "job 1"]


async def test_one_that_postgres_refuses_takes_the_others_with_it(store: JobStore, database: Connection) -> None:
    long = posting(2).model_copy(update={"description": "x" * 1_048_577})
    with pytest.raises(Invalid, match="job_description_check"):
        await store.write_batches([batch_of([posting(1)]), batch_of([long])])
    assert await database.fetchval("SELECT count(*) FROM job") == 0
    assert await advanced(database) == []


async def test_a_key_twice_in_one_write_is_refused(store: JobStore, database: Connection) -> None:
    await store.write([posting(1)])
    with pytest.raises(Invalid, match="the same source and external_id occur twice"):
        await store.write([posting(1, title="a"), posting(1, title="b")])
    with pytest.raises(Invalid, match="the same source and external_id occur twice"):
        await store.write([posting(2), posting(2)])
    assert (await only(database))["title"] == "job 1"


async def test_closed_at_absent_keeps_null_reopens_and_a_time_closes(store: JobStore, database: Connection) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    await store.write([posting(1)])
    await store.write([posting(1, closed_at=at.isoformat())])
    assert (await only(database))["closed_at"] == at
    assert await store.write([posting(1)]) == Written(0, 0, 1)
    await store.write([posting(1, title="changed while closed")])
    assert (await only(database))["closed_at"] == at
    await store.write([posting(1, title="changed while closed", closed_at=None)])
    assert (await only(database))["closed_at"] is None
    await store.write([posting(2, closed_at=at.isoformat())])
    assert [(event.kind, event.job["title"]) for event in await advanced(database)] == [
        ("posted", "job 1"), ("closed", "job 1"), ("updated", "changed while closed"), ("posted", "changed while closed"),
        ("closed", "job 2"),
    ]  # fmt: skip


async def test_posted_at_absent_is_now_and_then_kept(store: JobStore, database: Connection) -> None:
    await store.write([posting(1)])
    first = (await only(database))["posted_at"]
    await store.write([posting(1, title="other")])
    assert (await only(database))["posted_at"] == first
    await store.write([posting(1, posted_at="2026-01-01T00:00:00Z")])
    await store.write([posting(1, title="third")])
    assert (await only(database))["posted_at"] == datetime(2026, 1, 1, tzinfo=UTC)


async def test_what_is_absent_and_not_kept_is_cleared(store: JobStore, database: Connection) -> None:
    await store.write([posting(1, location="Berlin", tags=["a"], salary_min=1)])
    await store.write([posting(1)])
    row = await only(database)
    assert (row["location"], row["tags"], row["salary_min"]) == (None, [], None)


async def test_put_says_the_id_and_whether_it_is_new(store: JobStore) -> None:
    first = await store.put(posting(1))
    assert first.created
    assert first.json == await store.read(first.id)
    assert await store.put(posting(1)) == replace(first, created=False)
    third = await store.put(posting(1, title="new"))
    assert (third.id, third.created, orjson.loads(third.json)["title"]) == (first.id, False, "new")
    assert third.json == await store.read(first.id)


Between = Callable[[], Awaitable[object]]


@asynccontextmanager
async def interrupted(dsn: str, between: Between, **settings: str) -> AsyncIterator[JobStore]:
    """A store whose first write stops between its two statements, for as long as `between` takes."""
    todo = [between]

    class Interrupted(asyncpg.Connection):
        async def _once(self, query: str) -> None:
            if "UPDATE job" in query and todo:
                await todo.pop()()

        async def execute(self, query: str, *arguments: Any, **more: Any) -> Any:
            await self._once(query)
            return await super().execute(query, *arguments, **more)

        async def fetch(self, query: str, *arguments: Any, **more: Any) -> Any:
            await self._once(query)
            return await super().fetch(query, *arguments, **more)

    server = {"search_path": "feed", **settings}
    async with asyncpg.create_pool(
        dsn, min_size=0, max_size=1, connection_class=Interrupted, server_settings=server
    ) as connections:
        yield JobStore(connections)
    assert not todo


@pytest.mark.parametrize("many", [False, True])
async def test_a_write_that_cannot_be_serialized_starts_over(
    dsn: str, store: JobStore, database: Connection, many: bool
) -> None:
    await store.put(posting(1))

    async def other() -> None:
        await database.execute("UPDATE job SET title = 'of the other'")

    async with interrupted(dsn, other, default_transaction_isolation="repeatable read") as slow:
        if many:
            assert await slow.write([posting(1, title="of ours")]) == Written(0, 1, 0)
        else:
            assert not (await slow.put(posting(1, title="of ours"))).created
    assert (await only(database))["title"] == "of ours"
    assert (await only(database))["version"] == 3


async def test_a_posting_that_is_deleted_while_it_is_written_is_made_anew(
    dsn: str, store: JobStore, database: Connection
) -> None:
    first = await store.put(posting(1))
    async with interrupted(dsn, lambda: database.execute("DELETE FROM job")) as slow:
        stored = await slow.put(posting(1))
    assert stored.created
    assert stored.id != first.id
    assert stored.json == await store.read(stored.id)


async def test_a_close_happens_once_and_is_one_event(store: JobStore, database: Connection) -> None:
    job = (await store.put(posting(1))).id
    await store.close(job)
    await store.close(job)
    assert [event.kind for event in await advanced(database)] == ["posted", "closed"]


async def test_what_is_not_there_is_not_found(store: JobStore) -> None:
    with pytest.raises(NotFound, match="there is no posting 7"):
        await store.read(7)


async def test_a_posting_reads_with_its_description(store: JobStore) -> None:
    job = (await store.put(posting(1, description="a\r\n\u2028b", tags=["é"]))).id
    read = orjson.loads(await store.read(job))
    assert (read["description"], read["tags"], read["href"]) == ("a\r\n\u2028b", ["é"], f"/v1/jobs/{job}")


async def test_html_is_kept_and_compared_and_leaves_only_sanitised(store: JobStore, database: Connection) -> None:
    html = "<p>a<script>x</script></p><ul><li>b</ul>"
    job = (await store.put(posting(1, description_html=html))).id
    kept = {"description": "a\n\n- b", "description_html": "<p>a</p><ul><li>b</li></ul>"}
    assert orjson.loads(await store.read(job)).items() >= kept.items()
    assert dict(await only(database)).items() >= kept.items()
    assert await store.write([posting(1, description_html=html)]) == Written(0, 0, 1)
    assert await store.write([posting(1, description_html="<p>b", description=kept["description"])]) == Written(0, 1, 0)

    await database.execute("UPDATE job SET description_html = '<b onclick=x>c</b><img src=x>'")
    read = orjson.loads(await store.read(job))
    assert (read["description"], read["description_html"]) == ("a\n\n- b", "<b>c</b>")
    await database.execute("UPDATE job SET description = NULL")
    assert orjson.loads(await store.read(job))["description"] == "c"
    await database.execute("UPDATE job SET description_html = NULL")
    read = orjson.loads(await store.read(job))
    assert (read["description"], read["description_html"]) == (None, None)


async def test_overlapping_writes_in_any_order_all_succeed(store: JobStore, database: Connection) -> None:
    dice = random.Random(1)
    await store.write([posting(number) for number in range(0, 40, 2)])

    async def write(writer: int) -> int:
        numbers = list(range(40))
        dice.shuffle(numbers)
        at = "2026-01-01T00:00:00Z"
        done = await store.write([posting(number, title=f"by {writer}", posted_at=at) for number in numbers])
        return done.created

    created = await asyncio.gather(*(write(writer) for writer in range(6)))
    assert sum(created) == 20
    last = {row["title"] for row in await database.fetch("SELECT DISTINCT title FROM job")}
    assert len(last) == 1  # whoever came last wrote them all
    assert await database.fetchval("SELECT count(*) FROM job") == 40


# A known gap: the second writer did not see the row when it began, and takes the time of its own write for it.
async def test_a_new_posting_sent_twice_at_once_is_posted_once(
    store: JobStore, database: Connection, connect: Connect
) -> None:
    slow = await connect()

    async def waits() -> bool:
        return bool(await database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    async with slow.transaction():
        await add(slow, "job 1", source="s", external_id="1", url="https://a.example")
        second = asyncio.create_task(store.write([posting(1)]))
        await until(waits)
    assert await second == Written(0, 0, 1)


async def test_a_list_pages_from_the_newest_to_the_oldest_without_gap(store: JobStore, database: Connection) -> None:
    await store.write([posting(number, location="Berlin" if number % 2 else None) for number in range(25)])
    seen: list[int] = []
    after = None
    while True:
        page = await store.list(EVERYTHING, Page(open=None, after=after, limit=10))
        seen += [orjson.loads(job)["id"] for job in page.jobs]
        if page.next is None:
            break
        assert page.next.id == seen[-1]
        after = page.next
    ids = [row["id"] for row in await database.fetch("SELECT id FROM job ORDER BY id DESC")]
    assert seen == ids
    berlin = await store.list(Filter(location=(" berlin ",)), Page(open=None, limit=12))
    assert (len(berlin.jobs), berlin.next) == (12, None)
    exact = await store.list(EVERYTHING, Page(open=None, limit=25))
    assert (len(exact.jobs), exact.next) == (25, None)


async def test_a_list_is_of_open_closed_or_all_postings(store: JobStore) -> None:
    await store.write([posting(1), posting(2, closed_at="2026-01-01T00:00:00Z")])

    async def listed(closed: bool | None) -> list[str]:
        found = await store.list(EVERYTHING, Page(open=None if closed is None else not closed, limit=9))
        return [orjson.loads(job)["title"] for job in found.jobs]

    assert await listed(False) == ["job 1"]
    assert await listed(True) == ["job 2"]
    assert await listed(None) == ["job 2", "job 1"]


async def test_an_empty_list_still_has_its_place_in_the_log(store: JobStore, database: Connection) -> None:
    await add(database, "a")
    await database.execute("DELETE FROM job")
    await advanced(database)
    found = await store.list(EVERYTHING, Page(limit=9))
    assert (found.jobs, found.next, found.head) == ([], None, 2)
    assert found.epoch == await database.fetchval("SELECT epoch FROM state")


async def test_a_list_and_what_comes_after_its_place_make_the_whole(store: JobStore, connect: Connect) -> None:
    writer, mover, reader = await connect(), await connect(), await connect()
    over = asyncio.Event()

    async def write() -> None:
        for number in range(150):
            job = await add(writer, str(number))
            if number % 3 == 0:
                await writer.execute("UPDATE job SET title = title || '!' WHERE id = $1", job - 1)
        over.set()

    async def move() -> None:
        while not over.is_set():
            await advance(mover)

    pages = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        tasks.create_task(move())
        while not over.is_set():
            pages.append(await store.list(EVERYTHING, Page(open=None, limit=1000)))
    await advanced(reader)
    log = [tuple(row) for row in await reader.fetch("SELECT position, job[1], job[4] FROM log ORDER BY position")]
    final = {row["id"]: row["title"] for row in await reader.fetch("SELECT id, title FROM job")}
    assert len(pages) > 3
    for page in pages:
        state = {job["id"]: job["title"] for job in map(orjson.loads, page.jobs)}
        known = {int(job) for position, job, _ in log if position <= page.head}
        assert known <= set(state)
        state |= {int(job): title for position, job, title in log if position > page.head}
        assert state == final


async def test_a_store_without_its_database_says_it_is_away() -> None:
    async with open_store("postgresql://postgres@127.0.0.1:1/postgres") as away:
        with pytest.raises(DatabaseUnavailable):
            await away.read(1)
        with pytest.raises(DatabaseUnavailable):
            await away.write([posting(1)])
