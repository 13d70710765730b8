"""advance(): every committed row once, dense, in an order that no reader and no row can tell from the true one."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta

import asyncpg
import pytest

from feed.database.connect import pool
from feed.database.log import Log
from feed.model.event import Event
from tests.cluster import Cluster
from tests.conftest import Connect, make_settings
from tests.postgres.events import Connection, add, advance, advanced, dense, logged, opened, titles

MANY = "INSERT INTO job (title, company, url) SELECT 'job ' || n, 'Acme', 'u' FROM generate_series(1, $1) n"


async def test_a_lower_id_that_commits_later_comes_later_and_is_not_lost(
    database: Connection, connect: Connect
) -> None:
    early, late = await connect(), await connect()
    open_one = early.transaction()
    await open_one.start()
    await add(early, "low")
    await add(late, "high")
    assert titles(await advanced(database)) == ["high"]
    await open_one.commit()
    assert titles(await advanced(database)) == ["low"]
    assert dense(await logged(database))


async def test_what_is_rolled_back_takes_no_position(database: Connection, connect: Connect) -> None:
    writer = await connect()
    undone = writer.transaction()
    await undone.start()
    await add(writer, "never")
    await add(database, "a")
    await undone.rollback()
    await add(writer, "b")
    events = await advanced(database)
    assert titles(events) == ["a", "b"]
    assert dense(events)


async def test_savepoints_count_by_what_was_kept_of_them(database: Connection, connect: Connect) -> None:
    writer = await connect()
    async with writer.transaction():
        await add(writer, "before")
        kept = writer.transaction()
        await kept.start()
        await add(writer, "kept")
        await kept.commit()
        dropped = writer.transaction()
        await dropped.start()
        await add(writer, "dropped")
        await dropped.rollback()
        await add(writer, "after")
        assert await advanced(database) == []
    assert titles(await advanced(database)) == ["before", "kept", "after"]


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_writers_with_an_old_snapshot_are_heard(database: Connection, connect: Connect, isolation: str) -> None:
    old, new = await connect(), await connect()
    async with old.transaction(isolation=isolation):
        await old.fetchval("SELECT count(*) FROM job")
        await add(new, "new")
        assert titles(await advanced(database)) == ["new"]
        await add(old, "old")
        await add(new, "newer")
        assert titles(await advanced(database)) == ["newer"]
    assert titles(await advanced(database)) == ["old"]
    assert dense(await logged(database))


async def test_a_two_phase_commit_is_heard_however_many_batches_later(database: Connection, connect: Connect) -> None:
    await database.execute("SELECT setval('armed', 1)")
    writer = await connect()
    for name in ("kept", "undone"):
        await writer.execute("BEGIN; SET LOCAL feed.doorbell = 'off'")
        await add(writer, name)
        await writer.execute(f"PREPARE TRANSACTION '{name}'")
    for number in range(5):
        await add(writer, f"meanwhile {number}")
        assert titles(await advanced(database)) == [f"meanwhile {number}"]
    await writer.execute("COMMIT PREPARED 'kept'")
    await writer.execute("ROLLBACK PREPARED 'undone'")
    assert titles(await advanced(database)) == ["kept"]
    assert dense(await logged(database))
    assert await database.fetchval("SELECT count(*) FROM inbox") == 0


async def test_an_old_transaction_that_updates_a_row_after_a_newer_commit_comes_after_it(
    database: Connection, connect: Connect
) -> None:
    job = await add(database, "first")
    await advanced(database)
    old, new = await connect(), await connect()
    async with old.transaction():
        await add(old, "other")  # takes the lower xid and the lower inbox id
        await new.execute("UPDATE job SET title = 'second' WHERE id = $1", job)
        assert titles(await advanced(database)) == ["second"]
        await old.execute("UPDATE job SET title = 'third' WHERE id = $1", job)
    assert titles(await advanced(database)) == ["other", "third"]


async def test_an_old_transaction_moved_in_one_batch_with_a_newer_one_keeps_the_rows_order(
    database: Connection, connect: Connect
) -> None:
    job = await add(database, "first")
    old, new = await connect(), await connect()
    async with old.transaction():
        await add(old, "other")
        await new.execute("UPDATE job SET title = 'second' WHERE id = $1", job)
        await old.execute("UPDATE job SET title = 'third' WHERE id = $1", job)
    await database.execute("UPDATE job SET title = 'fourth' WHERE id = $1", job)
    events = [event for event in await advanced(database, 2) if event.job["id"] == job]
    assert titles(events) == ["first", "second", "third", "fourth"]


async def test_batches_are_bounded_and_say_that_more_waits(database: Connection) -> None:
    await database.execute(MANY, 10)
    seen = [await advance(database, 4) for _ in range(4)]
    assert [(row["moved"], row["more"], row["head"]) for row in seen] == [
        (4, True, 4), (4, True, 8), (2, False, 10), (0, False, 10),
    ]  # fmt: skip
    events = await logged(database)
    assert dense(events)
    assert titles(events) == [f"job {number}" for number in range(1, 11)]


async def test_a_batch_that_just_fits_leaves_nothing(database: Connection) -> None:
    await database.execute(MANY, 4)
    row = await advance(database, 4)
    assert (row["moved"], row["more"]) == (4, False)


async def test_what_commits_between_bounded_batches_is_taken_once(database: Connection, connect: Connect) -> None:
    slow = await connect()
    waiting = slow.transaction()
    await waiting.start()
    await add(slow, "slow")
    await database.execute(MANY, 6)
    await advance(database, 2)
    await waiting.commit()
    await add(slow, "late")
    events = await advanced(database, 2)
    assert titles(events) == ["slow", "job 3", "job 4", "job 5", "job 6", "late"]
    assert dense(await logged(database))


async def test_the_log_tells_when_it_was_sequenced_and_never_runs_backwards(database: Connection) -> None:
    await database.execute("UPDATE state SET at = now() + interval '1 hour'")  # the clock was set back
    for number in range(3):
        await add(database, str(number))
        await advanced(database)
    times = [row["at"] for row in await database.fetch("SELECT at FROM log ORDER BY position")]
    assert times == sorted(times)
    assert times[0] > await database.fetchval("SELECT now() + interval '30 minutes'")


async def test_the_head_is_told_on_the_channel_once_a_batch_and_not_without_news(
    database: Connection, connect: Connect
) -> None:
    heard: asyncio.Queue[object] = asyncio.Queue()
    listener = await connect()
    await listener.add_listener("feed", lambda *message: heard.put_nowait(message[3]))
    epoch = await database.fetchval("SELECT epoch FROM state")
    await database.execute(MANY, 5)
    await advanced(database, 3)
    await advance(database)
    await database.execute("SELECT pg_notify('feed', 'end')")
    assert [await heard.get() for _ in range(3)] == [f"{epoch}.3", f"{epoch}.5", "end"]
    await listener.reset()


@asynccontextmanager
async def advancing(connections: list[Connection], batch: int) -> AsyncIterator[None]:
    """Rival callers of advance() for as long as it lasts."""
    over = asyncio.Event()

    async def call(connection: Connection) -> None:
        while not over.is_set():
            await advance(connection, batch)

    async with asyncio.TaskGroup() as tasks:
        for connection in connections:
            tasks.create_task(call(connection))
        try:
            yield
        finally:
            over.set()


class Undone(Exception):
    """Rolls back the transaction that it leaves."""


async def mixed_writer(connection: Connection, seed: int, jobs: list[int], done: list[tuple[int, int]]) -> None:
    """Transactions over shared rows, in any isolation level, with savepoints and rollbacks; notes what it committed."""
    dice = random.Random(seed)
    for _ in range(15):
        changed: list[tuple[int, int]] = []
        isolation = dice.choice(["read_committed", "repeatable_read", "serializable"])
        with suppress(Undone, asyncpg.SerializationError):  # the latter may come with the commit itself
            async with connection.transaction(isolation=isolation):
                # Rows in ascending order: deadlocks are not what is looked for.
                for job in sorted(dice.sample(jobs, dice.randint(1, 2))):
                    with suppress(Undone):
                        async with connection.transaction():
                            version = await connection.fetchval(
                                "UPDATE job SET title = gen_random_uuid()::text WHERE id = $1 RETURNING version", job
                            )
                            if dice.random() < 0.2:
                                raise Undone
                        changed.append((job, version))
                    if dice.random() < 0.3:
                        await connection.execute("SELECT pg_sleep(0.002)")
                if dice.random() < 0.15:
                    raise Undone
            done += changed


def versions(events: list[Event]) -> dict[int, list[int]]:
    """The versions of each posting, in the order of the log."""
    found: dict[int, list[int]] = defaultdict(list)
    for event in events:
        found[event.job["id"]].append(event.job["version"])
    return found


@pytest.mark.parametrize("batch", [1, 3, 1000])
async def test_interleaved_writers_and_rival_callers_keep_every_rows_order(
    database: Connection, connect: Connect, batch: int
) -> None:
    jobs = [await add(database, "row") for _ in range(4)]
    await advanced(database)
    writers = [await connect() for _ in range(5)]
    done: list[tuple[int, int]] = []
    async with advancing([await connect(), await connect()], batch), asyncio.TaskGroup() as tasks:
        for seed, writer in enumerate(writers):
            tasks.create_task(mixed_writer(writer, seed, jobs, done))
    await advanced(database, batch)
    events = await logged(database)
    assert dense(events)
    assert sorted((event.job["id"], event.job["version"]) for event in events[4:]) == sorted(done)
    for found in versions(events).values():
        assert found == sorted(found)


async def test_a_caller_killed_inside_leaves_its_batch_for_the_next(database: Connection, connect: Connect) -> None:
    await database.execute(MANY, 3)
    killed = await connect()
    await killed.execute("BEGIN")
    assert (await advance(killed))["moved"] == 3
    await database.execute("SELECT pg_terminate_backend($1)", killed.get_server_pid())
    events = await advanced(database)
    assert len(events) == 3
    assert dense(events)


async def test_a_missing_partition_stalls_the_feed_and_loses_nothing(database: Connection) -> None:
    await database.execute("DROP TABLE log_1, log_250001, log_500001")
    assert await database.fetchval("SELECT extend_log(5, 0)") == 1
    await database.execute(MANY, 4)
    await advanced(database)
    await database.execute(MANY, 4)
    for _ in range(2):
        with pytest.raises(asyncpg.CheckViolationError, match="no partition"):
            await advance(database)
    assert await database.fetchval("SELECT count(*) FROM inbox") == 4
    assert await database.fetchval("SELECT extend_log(5, 1)") > 0
    events = await advanced(database)
    assert [event.position for event in events] == [5, 6, 7, 8]


async def test_partitions_are_made_as_far_ahead_as_asked_and_only_once(database: Connection, connect: Connect) -> None:
    await database.execute("DROP TABLE log_1, log_250001, log_500001")
    callers = [await connect() for _ in range(4)]
    made = await asyncio.gather(*(caller.fetchval("SELECT extend_log(10, 2)") for caller in callers))
    assert sorted(made) == [0, 0, 0, 3]
    await database.execute(MANY, 12)
    await advanced(database)
    assert await database.fetchval("SELECT extend_log(10, 2)") == 1
    # Another size goes on where the last partition ends.
    assert await database.fetchval("SELECT extend_log(100, 1)") == 1
    names = await database.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'log'::regclass"
    )
    assert sorted(row["name"] for row in names) == ["log_1", "log_11", "log_21", "log_31", "log_41"]


async def turned(copy: Connection, epoch: int) -> None:
    """The copy is another history from position 3 on; what waited in its inbox and what comes new are in it."""
    await add(copy, "new")
    events = await advanced(copy, 2)
    assert titles(events) == ["waiting 0", "waiting 1", "waiting 2", "new"]
    assert dense(events, 4)
    assert titles(await logged(copy))[:3] == ["old 0", "old 1", "old 2"]
    state = await copy.fetchrow("SELECT epoch, rescue, ident = ident() AS settled FROM state")
    assert state is not None
    assert state["epoch"] > epoch
    assert (state["rescue"], state["settled"]) == (False, True)
    assert await copy.fetchval("SELECT start_position FROM epoch WHERE epoch = $1", state["epoch"]) == 3
    # The turn is made once.
    await add(copy, "newer")
    assert titles(await advanced(copy)) == ["newer"]
    assert await copy.fetchval("SELECT epoch FROM state") == state["epoch"]


async def half_done(database: Connection) -> int:
    """Three events in the log and three in the inbox; returns the epoch."""
    for number in range(3):
        await add(database, f"old {number}")
    await advanced(database)
    for number in range(3):
        await add(database, f"waiting {number}")
    return int(await database.fetchval("SELECT epoch FROM state"))


async def test_a_cloned_database_begins_an_epoch_and_loses_nothing(
    database: Connection, dsn: str, cluster: Cluster
) -> None:
    epoch = await half_done(database)
    await database.close()
    name = dsn.rpartition("/")[2]
    async with opened(cluster.dsn()) as admin:
        await admin.execute(f"CREATE DATABASE {name}_clone TEMPLATE {name}")
        try:
            async with opened(cluster.dsn(f"{name}_clone")) as copy:
                await turned(copy, epoch)
        finally:
            await admin.execute(f"DROP DATABASE {name}_clone WITH (FORCE)")
    async with opened(dsn) as origin:
        assert titles(await advanced(origin)) == ["waiting 0", "waiting 1", "waiting 2"]
        assert await origin.fetchval("SELECT epoch FROM state") == epoch


async def test_a_restored_dump_begins_an_epoch_and_loses_nothing(
    database: Connection, dsn: str, cluster: Cluster
) -> None:
    epoch = await half_done(database)
    # As after a restore into a fresh cluster: the stored snapshot lies far ahead of the transactions to come.
    await database.execute("UPDATE state SET snap = '900000000:900000000:'")
    name = dsn.rpartition("/")[2]
    dump = cluster.root / f"{name}.sql"
    await asyncio.to_thread(cluster.run, "pg_dump", "-d", dsn, "-f", str(dump))
    async with opened(cluster.dsn()) as admin:
        await admin.execute(f"CREATE DATABASE {name}_restored")
        try:
            restored = cluster.dsn(f"{name}_restored")
            restore = ("psql", "-q", "-X", "-v", "ON_ERROR_STOP=1", "-d", restored, "-f", str(dump))
            await asyncio.to_thread(cluster.run, *restore)
            async with opened(restored) as copy:
                await turned(copy, epoch)
        finally:
            dump.unlink()
            await admin.execute(f"DROP DATABASE {name}_restored WITH (FORCE)")


async def test_a_writer_open_during_the_turn_of_the_epoch_is_heard_once(database: Connection, connect: Connect) -> None:
    epoch = await half_done(database)
    writer = await connect()
    async with writer.transaction():
        await add(writer, "open")
        await database.execute("UPDATE state SET ident = 'elsewhere'")
        row = await advance(database, 2)
        assert row["more"]
        await add(writer, "still open")
        assert titles(await advanced(database, 2)) == ["waiting 2"]
    assert titles(await advanced(database, 2)) == ["open", "still open"]
    assert dense(await logged(database))
    assert await database.fetchval("SELECT count(*) FROM epoch WHERE epoch > $1", epoch) == 1


async def test_an_old_epochs_positions_hold_up_to_the_next_ones_start(database: Connection, dsn: str) -> None:
    epochs = [await database.fetchval("SELECT epoch FROM state")]
    for ident in ("b", "c"):
        await database.execute(MANY, 5)
        await advanced(database)
        await database.execute("UPDATE state SET ident = $1", ident)
        await advance(database)
        epochs.append(await database.fetchval("SELECT epoch FROM state"))
    assert epochs == sorted(set(epochs))
    async with pool(make_settings(dsn).database, dsn) as connections:
        log = Log(connections)
        assert [await log.epoch_end(epoch) for epoch in epochs] == [5, 10, 2**63 - 1]
        assert await log.epoch_end(1) is None
        assert await log.epoch_end(epochs[-1] + 1) is None
        state = await log.state()
        assert (state.epoch, state.head, state.floor) == (epochs[-1], 10, 0)
        assert [event.position for event in await log.read(3, 6)] == [4, 5, 6]
        await database.execute("UPDATE state SET floor = 5")
        assert [event.position for event in await log.read(3, 6)] == [6]
        assert await log.read(10, 20) == []


async def test_the_turn_of_an_epoch_is_told_on_the_channel_without_news(database: Connection, connect: Connect) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = await connect()
    await listener.add_listener("feed", lambda *message: heard.put_nowait(str(message[3])))
    await database.execute("UPDATE state SET ident = 'elsewhere'")
    row = await advance(database)
    assert (row["moved"], row["head"]) == (0, 0)
    assert await heard.get() == f"{row['epoch']}.0"
    await listener.reset()


async def test_position_before_finds_the_last_event_older_than_an_instant(database: Connection, dsn: str) -> None:
    start = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    await database.execute(MANY, 50)
    await advanced(database)
    await database.execute("UPDATE log SET at = $1::timestamptz + make_interval(secs => position / 2)", start)
    async with pool(make_settings(dsn).database, dsn) as connections:
        log = Log(connections)

        async def before(seconds: float) -> int:
            return await log.position_before(start + timedelta(seconds=seconds))

        assert [await before(at) for at in (-1, 0, 0.5, 1, 1.5, 10, 24.9, 25, 26)] == [0, 0, 1, 1, 3, 19, 49, 49, 50]
        await database.execute("UPDATE state SET floor = 20")
        assert [await before(at) for at in (-1, 5, 10, 10.5, 26)] == [20, 20, 20, 21, 50]
        await database.execute("UPDATE state SET floor = 50")
        assert [await before(at) for at in (-1, 26)] == [50, 50]
