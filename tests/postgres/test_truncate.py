"""TRUNCATE closes every posting that it removes, also those that its transaction's snapshot does not see."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from feed.database.migrate import migrate
from feed.model.event import Event
from tests.cluster import Cluster, versions
from tests.conftest import Connect, make_settings
from tests.postgres.events import Connection, add, advance, advanced, dense, logged, opened
from tests.waiting import until

OLD_SNAPSHOTS = ["repeatable_read", "serializable"]


def folded(events: list[Event]) -> dict[object, str]:
    """What a subscriber still holds after these events: title by id."""
    held: dict[object, str] = {}
    for event in events:
        if event.kind == "closed":
            assert event.job["id"] in held, f"{event} closes what was not open"
            held.pop(event.job["id"])
        else:
            assert (event.kind == "posted") == (event.job["id"] not in held), event
            held[event.job["id"]] = event.job["title"]
    return held


@asynccontextmanager
async def looking(connection: Connection, isolation: str) -> AsyncIterator[None]:
    """A transaction whose snapshot is taken now; committed on leaving."""
    async with connection.transaction(isolation=isolation):
        await connection.fetchval("SELECT count(*) FROM job")
        yield


async def scene(database: Connection, other: Connection, isolation: str, sequenced: bool) -> None:
    """Truncate with a snapshot that saw none of what others committed; `sequenced`: the log has it already."""

    async def sequence() -> None:
        if sequenced:
            await advanced(other)

    kept, changed, deleted, mine, mine_gone = [await add(database, title) for title in "abcde"]
    await sequence()
    async with looking(database, isolation):
        unseen = [await add(other, f"unseen {number}") for number in range(3)]
        await other.execute("UPDATE job SET title = 'newer' WHERE id = ANY ($1)", [changed, unseen[0]])
        await other.execute("DELETE FROM job WHERE id = ANY ($1)", [deleted, unseen[1]])
        await sequence()
        await other.execute("UPDATE job SET title = 'newest' WHERE id = $1", unseen[0])
        await database.execute("UPDATE job SET title = 'mine' WHERE id = $1", mine)
        await database.execute("DELETE FROM job WHERE id = $1", mine_gone)
        await add(database, "mine too")
        await database.execute("TRUNCATE job")
        after = await add(database, "after")
    assert await database.fetchval("SELECT array_agg(id) FROM job") == [after]
    assert kept < after


@pytest.mark.parametrize("isolation", ["read_committed", *OLD_SNAPSHOTS])
@pytest.mark.parametrize("sequenced", [True, False])
@pytest.mark.parametrize("batch", [1, 3, 1000])
async def test_a_truncate_closes_what_others_committed_after_its_snapshot(
    database: Connection, connect: Connect, isolation: str, sequenced: bool, batch: int
) -> None:
    await scene(database, await connect(), isolation, sequenced)
    await add(database, "later")
    await advanced(database, batch)
    events = await logged(database)
    assert dense(events)
    assert sorted(folded(events).values()) == ["after", "later"]
    # What it closes, it closes as it was last.
    closed = {event.job["title"] for event in events if event.kind == "closed" and event.reason == "deleted"}
    assert closed == {"a", "newer", "c", "mine", "e", "newest", "unseen 1", "unseen 2", "mine too"}
    assert await database.fetchval("SELECT count(*) FROM inbox") == 0
    assert await database.fetchval("SELECT count(*) FROM truncation") == 0


@pytest.mark.parametrize("isolation", OLD_SNAPSHOTS)
async def test_a_truncate_that_sees_no_row_at_all_is_found_too(
    database: Connection, connect: Connect, isolation: str
) -> None:
    other = await connect()
    async with looking(database, isolation):
        await add(other, "unseen")
        await advanced(other)
        await database.execute("TRUNCATE job RESTART IDENTITY")
    job = await add(other, "again")
    events = await advanced(other)
    assert [(event.kind, event.job["title"]) for event in events] == [("closed", "unseen"), ("posted", "again")]
    assert events[0].job["id"] == job == 1


async def test_a_single_truncate_that_waited_for_a_writer_closes_what_that_committed(
    database: Connection, connect: Connect
) -> None:
    writer = await connect()
    async with asyncio.TaskGroup() as tasks:
        async with writer.transaction():
            await add(writer, "waited for")
            await database.execute("SET default_transaction_isolation = 'serializable'")
            truncating = tasks.create_task(database.execute("TRUNCATE job"))

            async def waits() -> bool:
                return bool(
                    await writer.fetchval(
                        "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)", database.get_server_pid()
                    )
                )

            await until(waits)
        await truncating
    assert [event.kind for event in await advanced(writer)] == ["posted", "closed"]


async def test_two_truncates_in_one_transaction_close_each_posting_once(database: Connection, connect: Connect) -> None:
    other = await connect()
    async with looking(database, "repeatable_read"):
        await add(other, "unseen")
        await database.execute("TRUNCATE job")
        await add(database, "between")
        await database.execute("TRUNCATE job")
        async with database.transaction():
            await add(database, "kept")
    await advanced(database, 1)
    assert list(folded(await logged(database)).values()) == ["kept"]


async def test_a_truncate_that_is_rolled_back_closes_nothing(database: Connection, connect: Connect) -> None:
    other = await connect()
    transaction = database.transaction(isolation="repeatable_read")
    await transaction.start()
    await database.fetchval("SELECT count(*) FROM job")
    await add(other, "unseen")
    await database.execute("TRUNCATE job")
    await transaction.rollback()
    await add(database, "later")
    assert list(folded(await advanced(database)).values()) == ["unseen", "later"]


async def test_a_truncate_that_becomes_visible_within_a_call_of_advance_is_completed_by_the_next(
    database: Connection, connect: Connect
) -> None:
    """advance() looks for a TRUNCATE in one statement and moves rows in the next, which may see more."""
    other = await connect()
    async with looking(database, "repeatable_read"):
        await add(other, "unseen")
        await database.execute("TRUNCATE job")
    await add(other, "later")
    # As if the first statement had not seen it.
    await other.execute("ALTER FUNCTION close_truncated() RENAME TO put_off")
    await other.execute("CREATE FUNCTION close_truncated() RETURNS void LANGUAGE sql AS ''")
    row = await advance(other)
    assert (row["moved"], row["more"]) == (1, True)
    await other.execute("DROP FUNCTION close_truncated(); ALTER FUNCTION put_off() RENAME TO close_truncated")
    await advanced(other)
    events = await logged(other)
    assert [(event.kind, event.job["title"]) for event in events] == [
        ("posted", "unseen"), ("closed", "unseen"), ("posted", "later"),
    ]  # fmt: skip


@pytest.mark.parametrize("version", sorted(versions()))
async def test_every_version_of_postgres_at_hand_closes_what_was_not_seen(version: int) -> None:
    cluster = Cluster(version)
    try:
        await asyncio.to_thread(lambda: cluster.create().start())
        await migrate(make_settings(cluster.dsn()), cluster.dsn())
        async with opened(cluster.dsn()) as database, opened(cluster.dsn()) as other:
            await scene(database, other, "repeatable_read", True)
            await advanced(database)
            assert list(folded(await logged(database)).values()) == ["after"]
    finally:
        await asyncio.to_thread(cluster.remove)
