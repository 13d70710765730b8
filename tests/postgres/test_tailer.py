"""The tailer: the hub gets every position once, in order, whatever becomes of the bell, the link and the server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import asyncpg
import pytest

from feed.database import tailer as tailer_module
from feed.database.connect import LOST
from feed.database.log import Log
from feed.database.migrate import migrate
from feed.database.sequencer import Sequencer
from feed.database.tailer import Tailer
from feed.fanout.hub import Hub
from feed.model.event import Event
from feed.settings.settings import Settings
from tests.cluster import Cluster, start_again
from tests.conftest import Connect, make_settings
from tests.logs import logged_by
from tests.postgres.events import Connection, add, advance, advanced, opened
from tests.postgres.running import running, terminate
from tests.proxy import proxied
from tests.waiting import until

FAR = {"tail_poll": 300.0, "sequencer_lease": 1000.0}
"""The poll behind the bell lies beyond the test's end."""


class Heard(Hub):
    """A hub that keeps all it was told."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.hub)
        self.events: list[Event] = []
        self.batches: list[int] = []
        self.begun: list[int] = []

    def restart_at(self, epoch: int, position: int) -> None:
        self.begun.append(position)
        super().restart_at(epoch, position)

    def publish(self, events: Sequence[Event]) -> None:
        self.events += events
        self.batches.append(len(events))
        super().publish(events)

    @property
    def positions(self) -> list[int]:
        return [event.position for event in self.events]


async def post(connection: Connection, *titles: str) -> None:
    """Commit postings, and sequence them."""
    for title in titles:
        await add(connection, title)
    await advanced(connection)


def port_of(dsn: str) -> int:
    return int(dsn.rpartition(":")[2].partition("/")[0])


async def test_a_commit_reaches_the_hub(database: Connection, dsn: str) -> None:
    settings = make_settings(dsn, **FAR)
    hub = Heard(settings)
    async with running(Sequencer(settings, dsn), Tailer(settings, dsn, hub)):
        await until(lambda: hub.ready)
        job = await add(database, "Baker")
        await until(lambda: hub.head == 1)
        await database.execute("UPDATE job SET title = 'Cook' WHERE id = $1", job)
        await until(lambda: hub.head == 2)
    assert [(event.position, event.kind, event.job["title"]) for event in hub.events] == [
        (1, "posted", "Baker"), (2, "updated", "Cook"),
    ]  # fmt: skip
    assert hub.epoch == await database.fetchval("SELECT epoch FROM state")
    assert [one.position for one in hub.ring.after(0, 10)] == [1, 2]


async def test_a_hub_that_starts_is_given_the_newest_events(database: Connection, dsn: str) -> None:
    await post(database, *map(str, range(12)))
    settings = make_settings(dsn, ring_events=5)
    hub = Heard(settings)
    tailer = Tailer(settings, dsn, hub)
    assert (tailer.connected, tailer.fault) == (False, "not connected yet")
    async with running(tailer):
        await until(lambda: tailer.connected)
        assert tailer.fault is None
        assert tailer.seen_at is not None
    assert hub.positions == [8, 9, 10, 11, 12]
    assert (hub.head, hub.behind, hub.generation) == (12, 0, 0)


async def test_a_commit_between_listen_and_the_first_read_is_heard(database: Connection, dsn: str) -> None:
    class Late(Tailer):
        async def _begin(self, connection: Any) -> int:
            await post(database, "between listen and the state")
            position = await super()._begin(connection)
            await post(database, "between the state and the first read")
            return position

    settings = make_settings(dsn, **FAR)
    hub = Heard(settings)
    async with running(Late(settings, dsn, hub)):
        await until(lambda: hub.head == 2)
    assert hub.positions == [1, 2]


async def test_a_commit_during_a_read_is_heard_without_the_poll(
    database: Connection, connect: Connect, dsn: str
) -> None:
    writer, turn = await connect(), asyncio.Lock()

    async def next_one() -> None:
        async with turn:
            await post(writer, "next")

    class Meanwhile(Heard):
        def publish(self, events: Sequence[Event]) -> None:
            super().publish(events)
            if self.head < 5:
                tasks.create_task(next_one())

    settings = make_settings(dsn, **FAR)
    hub = Meanwhile(settings)
    async with asyncio.TaskGroup() as tasks, running(Tailer(settings, dsn, hub)):
        await until(lambda: hub.ready)
        await post(database, "first")
        await until(lambda: hub.head == 5)
    assert hub.positions == [1, 2, 3, 4, 5]


async def test_with_every_notification_dropped_the_poll_delivers(database: Connection, dsn: str) -> None:
    class Deaf(Tailer):
        def _ring(self, *_: object) -> None:
            pass

    settings = make_settings(dsn, tail_poll=0.05)
    hub = Heard(settings)
    async with running(Deaf(settings, dsn, hub)):
        await until(lambda: hub.ready)
        for number in range(1, 4):
            await post(database, str(number))
            await until(lambda: hub.head == number)
    assert hub.positions == [1, 2, 3]


async def test_a_flood_is_read_in_pages(database: Connection, dsn: str) -> None:
    settings = make_settings(dsn, tail_page=10, **FAR)
    hub = Heard(settings)
    async with running(Tailer(settings, dsn, hub)):
        await until(lambda: hub.ready)
        await post(database, *map(str, range(35)))
        await database.execute("INSERT INTO job (title, company, url) SELECT 'x', 'y', 'z' FROM generate_series(1, 50)")
        await advanced(database)
        await until(lambda: hub.head == 85)
    assert hub.positions == list(range(1, 86))
    assert max(hub.batches) == 10
    assert hub.behind == 0


async def test_a_killed_listener_misses_nothing_and_resets_nobody(database: Connection, dsn: str) -> None:
    settings = make_settings(dsn, **FAR)
    hub = Heard(settings)
    async with running(Tailer(settings, dsn, hub)):
        await until(lambda: hub.ready)
        for number in range(1, 4):
            await post(database, "before")
            await until(lambda: hub.head == 2 * number - 1)
            await terminate(database, "feed tailer")
            await post(database, "after")
            await until(lambda: hub.head == 2 * number)
    assert hub.positions == [1, 2, 3, 4, 5, 6]
    assert hub.generation == 0


async def test_a_black_holed_listener_is_given_up_and_another_goes_on(database: Connection, dsn: str) -> None:
    settings = make_settings(dsn, tail_poll=0.1, tail_timeout=0.3)
    hub = Heard(settings)
    port = port_of(dsn)
    async with proxied(port) as proxy:
        away = dsn.replace(f":{port}/", f":{proxy.port}/")
        async with running(Tailer(settings, away, hub)):
            await until(lambda: hub.ready)
            await post(database, "before")
            await until(lambda: hub.head == 1)
            proxy.freeze()
            await post(database, "during")
            await until(lambda: hub.head == 2)  # by a new connection: the old one still hangs
            proxy.thaw()
            await post(database, "after")
            await until(lambda: hub.head == 3)
    assert hub.positions == [1, 2, 3]
    assert hub.generation == 0


async def test_a_listener_that_can_reach_nothing_says_so_and_goes_on_after_the_thaw(
    database: Connection, dsn: str
) -> None:
    settings = make_settings(dsn, tail_poll=0.1, tail_timeout=0.3, connect_timeout=0.3)
    hub = Heard(settings)
    port = port_of(dsn)
    async with proxied(port) as proxy:
        tailer = Tailer(settings, dsn.replace(f":{port}/", f":{proxy.port}/"), hub)

        async def refreeze() -> bool:
            proxy.freeze()
            return not tailer.connected

        async with running(tailer):
            await until(lambda: tailer.connected)
            await until(refreeze)
            assert tailer.fault is not None
            assert "does not answer" in tailer.fault
            await post(database, "during")
            proxy.thaw()
            await until(lambda: tailer.connected and hub.head == 1)
            assert tailer.fault is None
    assert hub.positions == [1]


async def test_an_epoch_that_shares_our_history_only_renames_it(database: Connection, dsn: str) -> None:
    settings = make_settings(dsn, **FAR)
    hub = Heard(settings)
    async with running(Tailer(settings, dsn, hub)):
        await until(lambda: hub.ready)
        await post(database, "a")
        await until(lambda: hub.head == 1)
        old = hub.epoch
        await database.execute("UPDATE state SET ident = 'promoted'")
        await advance(database)
        await until(lambda: hub.epoch > old)
        await post(database, "b")
        await until(lambda: hub.head == 2)
        # The turn and the next event in one batch.
        old = hub.epoch
        await database.execute("UPDATE state SET ident = 'promoted again'")
        await post(database, "c")
        await until(lambda: hub.head == 3)
        assert hub.epoch > old
    assert hub.positions == [1, 2, 3]
    assert hub.generation == 0


async def test_an_epoch_that_branched_off_before_our_position_starts_over(database: Connection, dsn: str) -> None:
    settings = make_settings(dsn, **FAR)
    hub = Heard(settings)
    async with running(Tailer(settings, dsn, hub)):
        await until(lambda: hub.ready)
        await post(database, "a", "b", "c")
        await until(lambda: hub.head == 3)
        # A standby that had not received the last two took over, and has gone further since.
        async with database.transaction():
            await database.execute("DELETE FROM log WHERE position > 1")
            await database.execute("UPDATE state SET head = 1, ident = 'promoted'")
            for title in ("B", "C", "D"):
                await add(database, title)
            await advance(database)
        await until(lambda: hub.generation == 1)
        await post(database, "E")
        await until(lambda: hub.head == 5)
    assert hub.begun == [0, 4]
    assert [event.job["title"] for event in hub.events] == ["a", "b", "c", "E"]
    assert [one.position for one in hub.ring.after(4, 10)] == [5]


async def test_a_head_that_fell_back_starts_over(database: Connection, dsn: str) -> None:
    settings = make_settings(dsn, tail_poll=0.05)
    hub = Heard(settings)
    async with running(Tailer(settings, dsn, hub)):
        await until(lambda: hub.ready)
        await post(database, "a", "b", "c")
        await until(lambda: hub.head == 3)
        await database.execute("DELETE FROM log WHERE position > 1; UPDATE state SET head = 1")
        await until(lambda: hub.generation == 1)
        await post(database, "B")
        await until(lambda: hub.head == 2)
    assert hub.begun == [0, 1]
    assert hub.positions == [1, 2, 3, 2]


async def test_a_feed_built_anew_starts_over(database: Connection, dsn: str) -> None:
    settings = make_settings(dsn, tail_poll=0.05)
    hub = Heard(settings)
    async with running(Tailer(settings, dsn, hub)):
        await until(lambda: hub.ready)
        await post(database, "a")
        await until(lambda: hub.head == 1)
        await database.execute(
            "WITH e AS (UPDATE state SET epoch = epoch + 1000 RETURNING epoch), gone AS (DELETE FROM epoch) "
            "INSERT INTO epoch SELECT epoch, 0 FROM e"
        )
        await until(lambda: hub.generation == 1)
        await post(database, "b")
        await until(lambda: hub.head == 2)
    assert hub.begun == [0, 1]


async def test_what_was_pruned_before_it_was_read_starts_over_at_the_head(database: Connection, dsn: str) -> None:
    class Delayed(Tailer):
        began = 0

        async def _begin(self, connection: Any) -> int:
            self.began += 1
            if self.began == 2:
                await post(database, *"cdefghij")
                await database.execute("UPDATE state SET floor = 7")
            return await super()._begin(connection)

    settings = make_settings(dsn, **FAR)
    hub = Heard(settings)
    async with running(Delayed(settings, dsn, hub)):
        await until(lambda: hub.ready)
        await post(database, "a", "b")
        await until(lambda: hub.head == 2)
        await terminate(database, "feed tailer")
        await until(lambda: hub.generation == 1)
        assert (hub.head, hub.ready) == (10, True)
        await post(database, "k")
        await until(lambda: hub.head == 11)
    assert hub.begun == [0, 10]
    assert hub.positions == [1, 2, 11]


async def test_everything_pruned_before_it_was_read_starts_over_too(database: Connection, dsn: str) -> None:
    class Delayed(Tailer):
        began = 0

        async def _begin(self, connection: Any) -> int:
            self.began += 1
            if self.began == 2:
                await post(database, "b", "c")
                await database.execute("UPDATE state SET floor = 3")
            return await super()._begin(connection)

    settings = make_settings(dsn, **FAR)
    hub = Heard(settings)
    async with running(Delayed(settings, dsn, hub)):
        await until(lambda: hub.ready)
        await post(database, "a")
        await until(lambda: hub.head == 1)
        await terminate(database, "feed tailer")
        await until(lambda: hub.generation == 1)
    assert hub.begun == [0, 3]


@pytest.fixture
async def own_cluster() -> AsyncIterator[Cluster]:
    """A Postgres to stop and to kill, with a migrated database `feed`."""
    cluster = Cluster().create().start()
    try:
        async with opened(cluster.dsn()) as admin:
            await admin.execute("CREATE DATABASE feed")
        dsn = cluster.dsn("feed")
        await migrate(make_settings(dsn), dsn)
        yield cluster
    finally:
        await asyncio.to_thread(cluster.remove)


class Writer:
    """Commits one posting after another, through every outage; knows which ones it was told were committed."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.committed: list[str] = []
        self._number = 0

    async def run(self) -> None:
        while True:
            try:
                connection = await asyncpg.connect(self._dsn, timeout=2, server_settings={"search_path": "feed"})
            except (*LOST, asyncpg.PostgresError):
                await asyncio.sleep(0.02)
                continue
            try:
                while True:
                    self._number += 1
                    await add(connection, str(self._number))
                    self.committed.append(str(self._number))
                    await asyncio.sleep(0.001)
            except (*LOST, asyncpg.PostgresError):
                pass
            finally:
                connection.terminate()


async def test_a_restarted_and_a_killed_server_lose_nothing(own_cluster: Cluster) -> None:
    dsn = own_cluster.dsn("feed")
    settings = make_settings(dsn)
    hub = Heard(settings)
    writer, tailer = Writer(dsn), Tailer(settings, dsn, hub)

    async def more() -> None:
        """Some postings further on, the hub has all of them."""
        goal = len(writer.committed) + 30
        await until(lambda: len(writer.committed) >= goal and hub.head >= goal, 60)

    async with running(Sequencer(settings, dsn), tailer, writer):
        await more()
        for outage in ("fast", "immediate", "kill"):
            if outage == "kill":
                own_cluster.kill()
            else:
                await asyncio.to_thread(own_cluster.stop, outage)
            await until(lambda: not tailer.connected)
            assert tailer.fault is not None
            await start_again(own_cluster)
            await more()
    async with opened(dsn) as connection:
        kept = [row["title"] for row in await connection.fetch("SELECT title FROM job ORDER BY id")]
    assert set(writer.committed) <= set(kept)
    assert hub.positions == list(range(1, len(hub.events) + 1))
    seen = [event.job["title"] for event in hub.events]
    assert seen == kept[: len(seen)]
    assert set(writer.committed[:-10]) <= set(seen)
    assert hub.generation == 0


async def test_a_tailer_and_a_sequencer_that_start_while_the_database_is_down_begin_when_it_comes(
    own_cluster: Cluster,
) -> None:
    dsn = own_cluster.dsn("feed")
    async with opened(dsn) as connection:
        await post(connection, "before")
    await asyncio.to_thread(own_cluster.stop)
    settings = make_settings(dsn)
    hub = Heard(settings)
    tailer = Tailer(settings, dsn, hub)
    async with running(Sequencer(settings, dsn), tailer):
        await until(lambda: tailer.fault is not None and "does not answer" in tailer.fault)
        assert not hub.ready
        await start_again(own_cluster)
        await until(lambda: tailer.connected)
        async with opened(dsn) as connection:
            await add(connection, "after")
        await until(lambda: hub.head == 2)
    assert hub.positions == [1, 2]


async def test_a_kind_that_is_newer_than_this_process_takes_its_position_and_stops_nothing(
    database: Connection, dsn: str
) -> None:
    settings = make_settings(dsn, **FAR)
    hub = Heard(settings)
    with logged_by(tailer_module) as logged:
        async with running(Tailer(settings, dsn, hub)):
            await until(lambda: hub.ready)
            await add(database, "before")
            for _ in range(2):
                await database.execute("INSERT INTO inbox (kind, job) VALUES ('merged', '{12,into,34}')")
            await post(database, "after")
            await until(lambda: hub.head == 4)
    assert [event.kind for event in hub.events] == ["posted", "unknown", "unknown", "posted"]
    unknown = [entry for entry in logged if entry.get("kind") == "merged"]
    assert [entry["position"] for entry in unknown] == [2]
    assert hub.counters.published == 4
    assert [event.kind for event in await Log(cast(Any, database)).read(0, 4)] == [one.kind for one in hub.events]
