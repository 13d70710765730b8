"""The indexer: the search index comes to hold what `job` holds, whatever happened, and lists are right in the meantime."""

import asyncio
import random

import asyncpg
import orjson
import pytest

from feed.database.connect import pool
from feed.database.indexer import BATCH, Indexer
from feed.database.jobs import JobStore
from feed.database.listing import BEHIND
from feed.database.sequencer import Sequencer
from feed.model.filter import Filter
from feed.model.page import Page
from tests.conftest import Connect, make_settings
from tests.postgres.events import Connection, add, advanced
from tests.postgres.indexing import index, indexed, make_indexer
from tests.postgres.running import running, terminate
from tests.waiting import until

BAKERS = Filter(q=(" baker",))


async def stored(connection: Connection) -> dict[int, bool]:
    """Return the ids that `job` holds, and whether each is open."""
    return {row["id"]: row["open"] for row in await connection.fetch("SELECT id, closed_at IS NULL AS open FROM job")}


async def titles(dsn: str, wanted: Filter = BAKERS, page: Page = Page(limit=500)) -> list[str]:
    """Return the titles of a list."""
    async with pool(make_settings(dsn).database, dsn) as connections:
        listing = await JobStore(connections).list(wanted, page)
    return [orjson.loads(job)["title"] for job in listing.jobs]


async def counted(connection: Connection) -> tuple[int, int]:
    row = await connection.fetchrow("SELECT opened, closed FROM search_state")
    assert row is not None
    return row["opened"], row["closed"]


async def test_the_index_holds_what_job_holds_after_every_kind_of_change(database: Connection, dsn: str) -> None:
    for name in "abcdef":
        await add(database, f"Baker {name}")
    await index(database, dsn)
    assert await indexed(database) == await stored(database)
    assert await counted(database) == (6, 0)
    await database.execute("UPDATE job SET closed_at = now() WHERE title IN ('Baker a', 'Baker b')")
    await database.execute("UPDATE job SET title = 'Cook' WHERE title = 'Baker c'")
    await database.execute("DELETE FROM job WHERE title = 'Baker d'")
    await index(database, dsn)
    assert await indexed(database) == await stored(database)
    assert await counted(database) == (3, 2)
    await database.execute("UPDATE job SET closed_at = NULL WHERE title = 'Baker a'")
    await index(database, dsn)
    assert await counted(database) == (4, 1)
    assert await titles(dsn) == ["Baker f", "Baker e", "Baker a"]
    assert await titles(dsn, page=Page(open=False)) == ["Baker b"]
    await database.execute("TRUNCATE job")
    await index(database, dsn)
    assert await indexed(database) == {}
    assert await counted(database) == (0, 0)


async def test_what_is_not_in_the_index_yet_is_listed_as_it_is(database: Connection, dsn: str) -> None:
    for name in ("kept", "closed", "deleted", "renamed"):
        await add(database, f"Baker {name}")
    await add(database, "Cook")
    await index(database, dsn)
    await database.execute("UPDATE job SET closed_at = now() WHERE title = 'Baker closed'")
    await database.execute("DELETE FROM job WHERE title = 'Baker deleted'")
    await database.execute("UPDATE job SET company = 'another' WHERE title = 'Baker kept'")
    await advanced(database)  # sequenced, but not in the index
    await database.execute("UPDATE job SET title = 'Nurse' WHERE title = 'Baker renamed'")
    await database.execute("UPDATE job SET title = 'Baker too' WHERE title = 'Cook'")
    await add(database, "Baker new")
    assert len(await indexed(database)) == 5
    assert await titles(dsn) == ["Baker new", "Baker too", "Baker kept"]


async def test_postings_from_before_the_index_are_entered_in_steps_and_lists_are_right_meanwhile(
    database: Connection, dsn: str
) -> None:
    await database.execute("DROP INDEX search_lexemes_open, search_lexemes_closed")
    await database.execute("UPDATE search_state SET filled = 0")
    count = 2 * BATCH + 7
    await database.execute(
        "INSERT INTO job (title, company, url) "
        "SELECT CASE WHEN n % 100 = 0 THEN 'Baker ' ELSE 'Cook ' END || n, 'a', 'https://a.example' "
        "FROM generate_series(1, $1) n",
        count,
    )
    await advanced(database)
    expected = [f"Baker {number}" for number in range(count // 100 * 100, 0, -100)]
    assert await titles(dsn) == expected
    await make_indexer(dsn).step(database)
    assert len(await indexed(database)) == BATCH
    assert await titles(dsn) == expected
    await database.execute("UPDATE job SET title = 'Baker first' WHERE title = 'Cook 1'")  # where it has been already
    await index(database, dsn)  # another indexer goes on from there
    assert await indexed(database) == await stored(database)
    assert await counted(database) == (count, 0)
    assert await database.fetchval("SELECT filled IS NULL AND position = head FROM search_state, state")
    assert await titles(dsn) == [*expected, "Baker first"]


async def test_a_step_that_is_interrupted_is_taken_again(database: Connection, connect: Connect, dsn: str) -> None:
    await add(database, "Baker")
    await advanced(database)
    victim, holder = await connect(), await connect()
    async with holder.transaction():
        await holder.execute("LOCK TABLE search IN SHARE MODE")  # the step stops before its last statement
        step = asyncio.create_task(make_indexer(dsn).step(victim))

        async def waits() -> bool:
            return bool(await database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

        await until(waits)
        await database.execute("SELECT pg_terminate_backend($1)", victim.get_server_pid())
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await step
    assert await database.fetchval("SELECT position FROM search_state") == 0
    await index(database, dsn)
    assert await indexed(database) == await stored(database)


async def test_where_retention_has_overtaken_the_index_it_is_built_anew(database: Connection, dsn: str) -> None:
    await add(database, "Baker old")
    await index(database, dsn)
    gone = await add(database, "Baker gone")
    await index(database, dsn)
    await database.execute("DELETE FROM job WHERE id = $1", gone)
    await add(database, "Baker new")
    await advanced(database)
    await database.execute("UPDATE state SET floor = head")
    await database.execute("DELETE FROM log")
    await index(database, dsn)
    assert await indexed(database) == await stored(database)
    assert await titles(dsn) == ["Baker new", "Baker old"]


async def test_far_behind_the_log_lists_do_without_the_index(database: Connection, dsn: str) -> None:
    await add(database, "Baker old")
    await index(database, dsn)
    await database.execute(
        "INSERT INTO job (title, company, url) SELECT 'Baker ' || n, 'a', 'https://a.example' FROM generate_series(1, $1) n",
        BEHIND + 100,
    )
    for sequenced in (False, True):
        if sequenced:
            await advanced(database)
        assert await titles(dsn, page=Page(limit=2)) == [f"Baker {BEHIND + 100}", f"Baker {BEHIND + 99}"]
    await index(database, dsn)
    assert await indexed(database) == await stored(database)


async def test_two_indexers_at_once_leave_the_index_right(database: Connection, connect: Connect, dsn: str) -> None:
    one, other = await connect(), await connect()
    indexers = [make_indexer(dsn), make_indexer(dsn)]
    for number in range(40):
        job = await add(database, f"Baker {number}")
        if number % 3 == 0:
            await database.execute("UPDATE job SET closed_at = now() WHERE id = $1", job)
        if number % 4 == 0:
            await database.execute("DELETE FROM job WHERE id = $1", job - 1)
        await advanced(database)
        await asyncio.gather(indexers[0].step(one), indexers[1].step(other))
    await index(database, dsn)
    now = await stored(database)
    assert await indexed(database) == now
    assert await counted(database) == (sum(now.values()), len(now) - sum(now.values()))


async def test_lists_are_exact_while_others_write_and_the_index_follows(
    database: Connection, connect: Connect, dsn: str
) -> None:
    """Every list agrees with what `job` held at one moment between its beginning and its end."""
    writer = await connect()
    settings = make_settings(dsn)
    sequencer = Sequencer(settings, dsn)
    indexer = Indexer(settings, dsn, sequencer, lambda: 2**62)
    dice = random.Random(5)
    history = [frozenset[int]()]
    over = asyncio.Event()

    async def write() -> None:
        bakers: set[int] = set()
        last = 0
        for number in range(300):
            if bakers and dice.random() < 0.4:
                job = dice.choice(sorted(bakers))
                bakers.discard(job)
                change = dice.choice(
                    ("DELETE FROM job", "UPDATE job SET closed_at = now()", "UPDATE job SET title = 'Cook'")
                )
                history.append(frozenset(bakers))
                await writer.execute(f"{change} WHERE id = $1", job)
            else:
                last += 1
                bakers.add(last)
                history.append(frozenset(bakers))
                assert await add(writer, f"Baker {number}") == last
        over.set()

    checked = 0
    async with running(sequencer, indexer), pool(settings.database, dsn) as connections:
        store = JobStore(connections)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            while not over.is_set():
                first = max(0, len(history) - 2)  # the last one may not have been written yet
                listing = await store.list(BAKERS, Page(limit=500))
                listed = frozenset(orjson.loads(job)["id"] for job in listing.jobs)
                assert listed in history[first:]
                checked += 1

        async def followed() -> bool:
            return bool(await database.fetchval("SELECT position = head AND head > 0 FROM search_state, state"))

        await until(followed)
        assert await indexed(database) == await stored(database)
        await terminate(database, "feed search index")
        await add(database, "Baker last")
        await until(lambda: _equal(database))
    assert checked > 5


async def _equal(database: Connection) -> bool:
    return await indexed(database) == await stored(database)
