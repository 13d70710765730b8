"""Retention of the log, partitions and expiry."""

import asyncio

import asyncpg
import pytest

from feed.database.access import forget_expired
from feed.database.retention import Retention, expire, prune
from feed.database.sequencer import Sequencer
from feed.settings.settings import Settings
from tests.conftest import Connect, make_settings
from tests.postgres.events import Connection, add, advanced, logged
from tests.postgres.running import backends, running
from tests.waiting import until

MANY = "INSERT INTO job (title, company, url) SELECT 'job ' || n, 'Acme', 'u' FROM generate_series(1, $1) n"


async def partitions(connection: Connection) -> list[int]:
    """The first positions of the log's partitions."""
    rows = await connection.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'log'::regclass"
    )
    return sorted(int(row["name"].removeprefix("log_")) for row in rows)


async def tables(connection: Connection) -> int:
    """How many tables are, or were, partitions of the log."""
    return int(
        await connection.fetchval("SELECT count(*) FROM pg_class WHERE relname ~ '^log_[0-9]+$' AND relkind = 'r'")
    )


@pytest.fixture
async def filled(database: Connection) -> Connection:
    """A log of 42 events in partitions of ten."""
    await database.execute("DROP TABLE log_1, log_250001, log_500001; SELECT extend_log(10, 5)")
    await database.execute(MANY, 42)
    await advanced(database)
    return database


def keeping(dsn: str, **more: float) -> Settings:
    return make_settings(dsn, **{"log_partition": 10, "log_partitions_ahead": 1, "sequencer_batch": 10} | more)


async def test_retention_by_count_raises_the_floor_and_drops_what_lies_below(filled: Connection, dsn: str) -> None:
    assert await prune(filled, keeping(dsn, retention_events=15)) == 2
    assert await filled.fetchval("SELECT floor FROM state") == 27
    assert await partitions(filled) == [21, 31, 41, 51]
    assert await tables(filled) == 4
    assert [event.position for event in await logged(filled)] == list(range(28, 43))
    assert await prune(filled, keeping(dsn, retention_events=15)) == 0
    # A longer retention brings nothing back.
    assert await prune(filled, keeping(dsn, retention_events=40)) == 0
    assert await filled.fetchval("SELECT floor FROM state") == 27


async def test_retention_by_age_raises_the_floor_to_the_last_event_that_is_too_old(
    filled: Connection, dsn: str
) -> None:
    assert await prune(filled, keeping(dsn, retention=3600)) == 0
    await filled.execute("UPDATE log SET at = at - interval '2 hours' WHERE position <= 30")
    assert await prune(filled, keeping(dsn, retention=3600)) == 3
    assert await filled.fetchval("SELECT floor FROM state") == 30
    assert await partitions(filled) == [31, 41, 51]


async def test_the_stricter_of_age_and_count_holds(filled: Connection, dsn: str) -> None:
    await filled.execute("UPDATE log SET at = at - interval '2 hours' WHERE position <= 12")
    await prune(filled, keeping(dsn, retention=3600, retention_events=40))
    assert await filled.fetchval("SELECT floor FROM state") == 12
    await prune(filled, keeping(dsn, retention=3600, retention_events=20))
    assert await filled.fetchval("SELECT floor FROM state") == 22


async def test_everything_may_go_and_positions_go_on(filled: Connection, dsn: str) -> None:
    await filled.execute("UPDATE log SET at = at - interval '2 hours'")
    assert await prune(filled, keeping(dsn, retention=3600)) == 4
    await add(filled, "next")
    assert [event.position for event in await advanced(filled)] == [43]


async def blocked(connection: Connection) -> bool:
    """Whether a DETACH waits for somebody."""
    return bool(
        await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'ALTER TABLE log DETACH%' AND wait_event_type = 'Lock' "
            "AND datname = current_database()"
        )
    )


async def test_the_floor_is_known_before_a_partition_goes_and_a_reader_holds_up_nobody(
    filled: Connection, connect: Connect, dsn: str
) -> None:
    reader, keeper = await connect(), await connect()
    async with asyncio.TaskGroup() as tasks:
        async with reader.transaction(isolation="repeatable_read"):
            assert len(await logged(reader)) == 42
            pruning = tasks.create_task(prune(keeper, keeping(dsn, retention_events=15)))
            await until(lambda: blocked(filled))
            # Everybody else reads, sequences and extends on.
            assert [event.position for event in await logged(filled)] == list(range(28, 43))
            await add(filled, "meanwhile")
            assert [event.position for event in await advanced(filled)] == [43]
            await filled.execute("SELECT extend_log(10, 3)")
            # The reader reads what it began with.
            assert len(await logged(reader)) == 42
            assert not pruning.done()
        assert await pruning == 2
    assert min(await partitions(filled)) == 21


async def test_a_detach_that_was_interrupted_is_finished_by_the_next_round(
    filled: Connection, connect: Connect, dsn: str
) -> None:
    reader, keeper = await connect(), await connect()
    settings = keeping(dsn, retention_events=15)
    async with reader.transaction():
        await logged(reader)
        pruning = asyncio.create_task(prune(keeper, settings))
        await until(lambda: blocked(filled))
        await filled.execute("SELECT pg_terminate_backend($1)", keeper.get_server_pid())
        with pytest.raises(
            (asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError, asyncpg.InternalClientError)
        ):
            await pruning
    assert await filled.fetchval("SELECT count(*) FROM pg_inherits WHERE inhdetachpending") == 1
    assert [event.position for event in await logged(filled)] == list(range(28, 43))
    assert await prune(filled, settings) == 2
    assert await partitions(filled) == [21, 31, 41, 51]
    assert await tables(filled) == 4


async def test_a_partition_that_was_detached_and_not_dropped_is_dropped_by_the_next_round(
    filled: Connection, dsn: str
) -> None:
    await filled.execute("UPDATE state SET floor = 20")
    await filled.execute("ALTER TABLE log DETACH PARTITION log_1")
    await prune(filled, keeping(dsn))
    assert await partitions(filled) == [21, 31, 41, 51]
    assert await tables(filled) == 4


async def test_partitions_are_made_ahead_while_the_feed_runs(filled: Connection, dsn: str) -> None:
    settings = keeping(dsn, housekeeping=0.05, retention_events=5, log_partitions_ahead=2)
    sequencer = Sequencer(settings, dsn)

    async def kept() -> bool:
        head = await filled.fetchval("SELECT head FROM state")
        held = await partitions(filled)
        return bool(head == goal and held[0] > goal - 5 - 10 and held[-1] > head + 10)

    goal = 42
    async with running(sequencer, Retention(settings, dsn, sequencer)):
        for _ in range(3):
            await filled.execute(MANY, 25)
            goal += 25
            await until(kept)


async def test_postings_past_their_time_are_closed_as_expired_a_thousand_at_a_time(database: Connection) -> None:
    await database.execute(
        "INSERT INTO job (title, company, url, valid_through) VALUES ('later', 'y', 'z', '2999-01-01')"
    )
    await database.execute("INSERT INTO job (title, company, url) VALUES ('never', 'y', 'z')")
    await database.execute(
        "INSERT INTO job (title, company, url, valid_through) "
        "SELECT 'x', 'y', 'z', now() - interval '1 second' FROM generate_series(1, 2500)"
    )
    await advanced(database)
    assert await expire(database) == 2500
    assert await expire(database) == 0
    events = await advanced(database)
    assert {(event.kind, event.reason, event.job["title"]) for event in events} == {("closed", "expired", "x")}
    assert len(events) == 2500
    written = await database.fetch("SELECT count(*) AS n FROM job WHERE closed_at IS NOT NULL GROUP BY xmin ORDER BY n")
    assert [row["n"] for row in written] == [500, 1000, 1000]
    await database.execute("UPDATE job SET closed_at = now() WHERE title = 'never'")
    assert [event.reason for event in await advanced(database)] == ["closed"]


async def test_a_posting_that_somebody_writes_is_left_to_the_next_round(database: Connection, connect: Connect) -> None:
    writer = await connect()
    kept = await add(database, "a")
    await database.execute("UPDATE job SET valid_through = now() - interval '1 second'")
    gone = await database.fetchval(
        "INSERT INTO job (title, company, url, valid_through) VALUES ('b', 'y', 'z', 'epoch') RETURNING id"
    )
    async with writer.transaction():
        await writer.execute("UPDATE job SET valid_through = '2999-01-01' WHERE id = $1", kept)
        assert await expire(database) == 1
    assert await expire(database) == 0
    assert await database.fetchval("SELECT array_agg(id) FROM job WHERE closed_at IS NOT NULL") == [gone]


async def test_the_leader_expires_and_a_follower_does_not(database: Connection, dsn: str) -> None:
    settings = make_settings(dsn, expiry_interval=0.05)
    leader, follower = Sequencer(settings, dsn), Sequencer(settings, dsn)
    async with running(leader, Retention(settings, dsn, leader)):
        await leader.leading.wait()
        async with running(follower, Retention(settings, dsn, follower)):
            await add(database, "a")
            await database.execute("UPDATE job SET valid_through = now() - interval '1 second'")

            async def closed() -> bool:
                return len(await logged(database)) == 3

            await until(closed)
            assert not follower.leading.is_set()
            assert len(await backends(database, "feed retention")) == 1
    assert [(event.kind, event.reason) for event in await logged(database)] == [
        ("posted", None), ("updated", None), ("closed", "expired"),
    ]  # fmt: skip


async def test_tickets_and_revocations_that_matter_no_more_are_forgotten(database: Connection) -> None:
    await database.execute(
        "INSERT INTO ticket (digest, holder, filter, expires_at, resume_until) VALUES "
        "(sha256('1'), '{}', '', now() - interval '1 s', NULL), (sha256('2'), '{}', '', now() + interval '1 h', NULL), "
        "(sha256('3'), '{}', '', now() - interval '1 h', now() + interval '1 h')"
    )
    await database.execute(
        "INSERT INTO revocation (kind, subject, until) VALUES ('session', 'old', now() - interval '1 s'), "
        "('session', 'new', now() + interval '1 h'), ('subject', 'alice', 'infinity')"
    )
    await forget_expired(database)
    assert await database.fetchval("SELECT count(*) FROM ticket") == 2
    assert [row["subject"] for row in await database.fetch("SELECT subject FROM revocation ORDER BY 1")] == [
        "alice",
        "new",
    ]
