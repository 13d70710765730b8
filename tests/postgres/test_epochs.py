"""Epochs: a new one for every start of the server, told apart from any other history's, forgotten only below the floor."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from feed.database.connect import pool
from feed.database.log import Log
from feed.database.migrate import migrate
from feed.database.retention import forget_epochs
from feed.model.cursor import Cursor, parse_cursor
from tests.cluster import Cluster, restart
from tests.conftest import make_settings
from tests.postgres.events import Connection, add, advance, advanced, opened, titles


@pytest.fixture
async def own_cluster() -> AsyncIterator[Cluster]:
    """A Postgres to restart, with the feed's schema in `postgres`."""
    cluster = await asyncio.to_thread(lambda: Cluster().create().start())
    try:
        await migrate(make_settings(cluster.dsn()), cluster.dsn())
        yield cluster
    finally:
        await asyncio.to_thread(cluster.remove)


async def chain(connection: Connection) -> list[tuple[int, int]]:
    """The epochs and their start positions, oldest first."""
    return [tuple(row) for row in await connection.fetch("SELECT epoch, start_position FROM epoch ORDER BY epoch")]


@pytest.mark.parametrize("end", ["fast", "immediate", "kill"])
async def test_every_start_of_the_server_begins_one_epoch_at_the_head(own_cluster: Cluster, end: str) -> None:
    starts = [0]
    for number in range(1, 4):
        async with opened(own_cluster.dsn()) as connection:
            await add(connection, "sequenced")
            await advanced(connection)
            starts.append(int((await advance(connection))["head"]))
            await add(connection, f"waiting {number}")
        await restart(own_cluster, end)
        async with opened(own_cluster.dsn()) as connection:
            assert titles(await advanced(connection)) == [f"waiting {number}"]
            assert (await advance(connection))["moved"] == 0
            assert [start for _, start in await chain(connection)] == starts


async def test_sessions_with_other_settings_see_the_same_run_of_the_server(database: Connection) -> None:
    ident = await database.fetchval("SELECT ident()")
    await database.execute("SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'SQL, DMY'; SET extra_float_digits = -15")
    assert await database.fetchval("SELECT ident()") == ident


async def test_histories_that_part_at_the_same_moment_choose_different_epochs(database: Connection) -> None:
    [(parted, _)] = (await chain(database))[-1:]
    for behind in (0, 10**9):  # the clock has moved on, or stands behind the last epoch
        rows = await database.fetch(
            "SELECT next_epoch($1) AS epoch FROM generate_series(1, 1000)", parted + behind
        )  # a thousand copies
        found = [row["epoch"] for row in rows]
        assert min(found) > parted + behind
        assert len(set(found)) > 990
        assert all(parse_cursor(f"{epoch}.7") == Cursor(7, epoch) for epoch in found)


async def begin(connection: Connection, ident: str, events: int) -> None:
    """Begin another epoch, and sequence some events in it."""
    await connection.execute("UPDATE state SET ident = $1", ident)
    await advance(connection)
    for number in range(events):
        await add(connection, f"{ident} {number}")
    await advanced(connection)
    await connection.execute("UPDATE state SET ident = ident()")


async def test_an_epoch_is_forgotten_once_all_its_positions_lie_below_the_floor(database: Connection, dsn: str) -> None:
    for ident in ("a", "b", "c"):
        await begin(database, ident, 10)
    before = [(epoch, start) for epoch, start in await chain(database) if start]
    assert [start for _, start in before] == [10, 20]
    [first] = [epoch for epoch, start in await chain(database) if start == 0][-1:]
    async with pool(make_settings(dsn).database, dsn) as connections:
        log = Log(connections)
        # The first epoch ends at 10, and an id of 10 misses nothing that is still there.
        await database.execute("UPDATE state SET floor = 10")
        await forget_epochs(database)
        assert await log.epoch_end(first) == 10
        await database.execute("UPDATE state SET floor = 11")
        assert await forget_epochs(database) >= 1
        assert await chain(database) == before
        assert await log.epoch_end(first) is None
        assert [await log.epoch_end(epoch) for epoch, _ in before] == [20, 2**63 - 1]
        # The epoch in force stays, wherever the floor is.
        await database.execute("UPDATE state SET floor = 30")
        await forget_epochs(database)
        assert await chain(database) == before[-1:]
        assert await forget_epochs(database) == 0


async def test_of_a_server_that_restarts_for_ever_the_newest_epochs_stay(database: Connection) -> None:
    for number in range(8):
        await begin(database, str(number), 0)
    kept = (await chain(database))[-3:]
    await forget_epochs(database, 3)
    assert await chain(database) == kept
    assert kept[-1][0] == await database.fetchval("SELECT epoch FROM state")
