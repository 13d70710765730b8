"""The sequencer: what is committed is sequenced, whoever leads, however the bell stands."""

import asyncio
from typing import Any

import asyncpg
import pytest

from feed.database.sequencer import Advance, Sequencer
from tests.conftest import Connect, make_settings
from tests.postgres.events import Connection, add, dense, logged, titles
from tests.postgres.running import running, terminate
from tests.proxy import proxied
from tests.waiting import until

FAR = {"tail_poll": 300.0, "sequencer_lease": 1000.0}
"""The poll behind the bell lies beyond the test's end: what comes, comes by the bell or by the polling before it."""


async def sequenced(connection: Connection, *expected: str) -> None:
    """Wait until the log holds these titles, and see that it holds nothing else."""

    async def full() -> bool:
        return len(await logged(connection)) >= len(expected)

    await until(full)
    events = await logged(connection)
    assert titles(events) == list(expected)
    assert dense(events)


async def armed(connection: Connection) -> None:
    """Wait until the sequencer has asked to be woken."""

    async def is_armed() -> bool:
        return bool(await connection.fetchval("SELECT last_value = 1 FROM armed"))

    await until(is_armed)


async def asleep(connection: Connection) -> None:
    """Wait until it polls no more and waits for the bell alone."""

    async def sleeps() -> bool:
        return bool(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'feed sequencer' AND state = 'idle' "
                "AND datname = current_database() AND clock_timestamp() > state_change + interval '100 ms' "
                "AND (SELECT last_value = 1 FROM armed)"
            )
        )

    await armed(connection)
    await until(sleeps)


async def test_a_commit_is_sequenced_while_the_sequencer_is_awake(database: Connection, dsn: str) -> None:
    sequencer = Sequencer(make_settings(dsn, sequencer_idle=300.0), dsn)
    async with running(sequencer):
        await sequencer.leading.wait()
        await add(database, "a")
        await sequenced(database, "a")
        await add(database, "b")
        await sequenced(database, "a", "b")


async def test_a_commit_rings_a_sleeping_sequencer(database: Connection, dsn: str) -> None:
    expected = []
    async with running(Sequencer(make_settings(dsn, **FAR), dsn)):
        for number in range(5):
            await asleep(database)
            expected.append(str(number))
            await add(database, expected[-1])
            await sequenced(database, *expected)


async def test_a_writer_paused_between_its_trigger_and_its_commit_while_the_bell_is_armed_is_found(
    database: Connection, connect: Connect, dsn: str
) -> None:
    sequencer = Sequencer(make_settings(dsn, **FAR, sequencer_idle=0.2), dsn)
    writer = await connect()
    async with running(sequencer):
        await sequencer.leading.wait()
        async with writer.transaction():
            await add(writer, "unaware")  # the bell was not armed: it is not rung at the commit
            await armed(database)
        await sequenced(database, "unaware")


async def test_a_writer_that_commits_just_after_the_last_look_is_found_before_the_sequencer_sleeps(
    database: Connection, connect: Connect, dsn: str
) -> None:
    writer = await connect()
    transaction = writer.transaction()

    class Watched(Sequencer):
        looks = 0

        async def _advance(self, connection: Any) -> Advance:
            done = await super()._advance(connection)
            self.looks += await connection.fetchval("SELECT last_value FROM armed")
            if self.looks == 3:
                await transaction.commit()
                self.looks += 1
            return done

    sequencer = Watched(make_settings(dsn, **FAR, sequencer_idle=0.2), dsn)
    async with running(sequencer):
        await sequencer.leading.wait()
        await transaction.start()
        await add(writer, "unaware")
        await sequenced(database, "unaware")


async def test_a_transaction_that_stays_open_holds_up_nobody_else(
    database: Connection, connect: Connect, dsn: str
) -> None:
    idle, other = await connect(), await connect()
    async with running(Sequencer(make_settings(dsn, **FAR), dsn)):
        await armed(database)
        async with idle.transaction():
            await add(idle, "late")
            await add(other, "a")
            await sequenced(database, "a")
            await armed(database)
            await add(other, "b")
            await sequenced(database, "a", "b")
        await sequenced(database, "a", "b", "late")


async def test_without_the_doorbell_it_polls_and_writers_may_prepare(
    database: Connection, connect: Connect, dsn: str
) -> None:
    await database.execute("SELECT setval('armed', 1)")  # as another leader may have left it
    writer = await connect()
    sequencer = Sequencer(make_settings(dsn, **FAR, doorbell=False), dsn)
    async with running(sequencer):
        await sequencer.leading.wait()

        async def disarmed() -> bool:
            return bool(await database.fetchval("SELECT last_value = 0 FROM armed"))

        await until(disarmed)
        await writer.execute("BEGIN")
        await add(writer, "prepared")
        await writer.execute("PREPARE TRANSACTION 'p'")
        await add(writer, "plain")
        await sequenced(database, "plain")
        await writer.execute("COMMIT PREPARED 'p'")
        await sequenced(database, "plain", "prepared")
        assert await disarmed()


async def test_a_flood_is_moved_in_bounded_batches(database: Connection, connect: Connect, dsn: str) -> None:
    heard: list[int] = []
    listener = await connect()
    await listener.add_listener("feed", lambda *message: heard.append(int(str(message[3]).split(".")[1])))
    async with running(Sequencer(make_settings(dsn, sequencer_batch=100), dsn)):
        await database.execute(
            "INSERT INTO job (title, company, url) SELECT n::text, 'Acme', 'u' FROM generate_series(1, 1000) n"
        )
        await sequenced(database, *map(str, range(1, 1001)))
        await until(lambda: heard and heard[-1] == 1000)
    assert heard == list(range(100, 1001, 100))
    await listener.reset()


async def test_each_round_of_a_call_is_committed_and_heard_by_itself(database: Connection, connect: Connect) -> None:
    caller, listener = await connect(), await connect()
    heard: list[str] = []
    await listener.add_listener("feed", lambda *message: heard.append(str(message[3])))
    call = asyncio.create_task(caller.execute("CALL sequence(100, 30, 0.003, 0.01, 1000000, 1000000, 0, NULL)"))
    for number, title in enumerate("abc", 1):
        await add(database, title)
        await until(lambda number=number: len(heard) == number)
        await sequenced(database, *"abc"[:number])
    assert not call.done()
    await database.execute("SELECT pg_cancel_backend($1)", caller.get_server_pid())
    with pytest.raises(asyncpg.QueryCanceledError):
        await call
    await listener.reset()


async def test_a_call_ends_after_its_quiet_rounds_or_after_all_of_its_rounds(database: Connection) -> None:
    for number in range(25):
        await add(database, str(number))
    call = "CALL sequence(10, 1000, 0, 0, $1, $2, 0, NULL)"
    two = await database.fetchrow(call, 3, 2)
    rest = await database.fetchrow(call, 3, 100)
    assert two is not None and rest is not None
    assert (two["still"], len(two["ages"])) == (0, 2)
    assert (rest["still"], len(rest["ages"])) == (3, 1)
    assert all(age >= 0 for age in (*two["ages"], *rest["ages"]))
    assert dense(await logged(database))
    assert (await database.fetchval("SELECT head FROM state")) == 25


async def test_it_makes_the_partition_that_is_missing_and_goes_on(database: Connection, dsn: str) -> None:
    await database.execute("DROP TABLE log_1, log_250001, log_500001")
    async with running(Sequencer(make_settings(dsn, log_partition=3, log_partitions_ahead=1, sequencer_batch=4), dsn)):
        for number in range(20):
            await add(database, str(number))
        await sequenced(database, *map(str, range(20)))


async def test_a_leader_whose_backend_is_killed_leads_again(database: Connection, dsn: str) -> None:
    sequencer = Sequencer(make_settings(dsn), dsn)
    async with running(sequencer):
        await sequencer.leading.wait()
        await add(database, "a")
        await sequenced(database, "a")
        for title in ("b", "c"):
            await terminate(database, "feed sequencer")
            await add(database, title)
            await sequenced(database, *"abc"[: "abc".index(title) + 1])


async def test_only_one_leads_and_a_rival_takes_over_when_it_ends(database: Connection, dsn: str) -> None:
    first, second = Sequencer(make_settings(dsn), dsn), Sequencer(make_settings(dsn), dsn)
    async with running(second):
        async with running(first):
            await until(lambda: first.leading.is_set() or second.leading.is_set())
            await add(database, "a")
            await sequenced(database, "a")
            assert first.leading.is_set() != second.leading.is_set()
        await second.leading.wait()
        await add(database, "b")
        await sequenced(database, "a", "b")


async def test_a_rival_takes_over_when_the_leaders_backend_is_killed_and_it_cannot_come_back(
    database: Connection, dsn: str
) -> None:
    settings = make_settings(dsn)
    port = int(dsn.rpartition(":")[2].partition("/")[0])
    async with proxied(port) as proxy:
        leader = Sequencer(settings, dsn.replace(str(port), str(proxy.port)))
        rival = Sequencer(settings, dsn)
        async with running(leader):
            await leader.leading.wait()
            async with running(rival):
                proxy.freeze()
                await terminate(database, "feed sequencer")
                await rival.leading.wait()
                await add(database, "a")
                await sequenced(database, "a")


async def test_a_leader_that_falls_silent_loses_its_lease_to_a_rival_and_comes_back_as_a_follower(
    database: Connection, dsn: str
) -> None:
    # The poll keeps a living leader's session busy; a stopped process, or a dead link, is silent.
    settings = make_settings(dsn, tail_poll=0.1, sequencer_lease=0.5, query_timeout=2.0)
    port = int(dsn.rpartition(":")[2].partition("/")[0])
    async with proxied(port) as proxy:
        leader = Sequencer(settings, dsn.replace(str(port), str(proxy.port)))
        rival = Sequencer(settings, dsn)
        async with running(leader):
            await leader.leading.wait()
            async with running(rival):
                await add(database, "a")
                await sequenced(database, "a")
                proxy.freeze()
                await add(database, "b")
                await rival.leading.wait()
                await sequenced(database, "a", "b")
                proxy.thaw()
                await until(lambda: not leader.leading.is_set())
                await add(database, "c")
                await sequenced(database, "a", "b", "c")
                assert rival.leading.is_set()
                assert not leader.leading.is_set()


async def test_a_living_leader_keeps_its_lease(database: Connection, dsn: str) -> None:
    settings = make_settings(dsn, tail_poll=0.05, sequencer_lease=0.3)
    sequencer = Sequencer(settings, dsn)
    session = (
        "SELECT pid, clock_timestamp() > backend_start + interval '1500 ms' AS aged FROM pg_stat_activity "
        "WHERE application_name = 'feed sequencer' AND datname = current_database()"
    )
    async with running(sequencer):
        await armed(database)
        first = await database.fetchrow(session)
        assert first is not None

        async def five_leases_on() -> bool:
            row = await database.fetchrow(session)
            assert row is not None
            assert row["pid"] == first["pid"]
            return bool(row["aged"])

        await until(five_leases_on)
        assert sequencer.leading.is_set()
