"""A restarted database resets nobody; one that is a copy of another resets who has seen what it never had."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.cluster import Cluster, restart
from tests.conftest import Running, make_settings, run_server
from tests.postgres.events import Connection
from tests.reader import Frame, reading
from tests.server.postings import INSERT, MANY
from tests.waiting import until

NewCluster = Callable[[], Cluster]


@pytest.fixture
async def new_cluster() -> AsyncIterator[NewCluster]:
    """Make clusters without files; all are removed at the end."""
    made: list[Cluster] = []

    def new() -> Cluster:
        made.append(Cluster())
        return made[-1]

    yield new
    for cluster in made:
        await asyncio.to_thread(cluster.remove)


@pytest.fixture
async def origin(new_cluster: NewCluster) -> Cluster:
    """A cluster that runs."""
    return await asyncio.to_thread(lambda: new_cluster().create().start())


@asynccontextmanager
async def serving(cluster: Cluster) -> AsyncIterator[tuple[Running, Connection]]:
    """A service on the cluster's database, and a writer there."""
    settings = make_settings(cluster.dsn(), ring_events=5, history_page=2, log_level="error")
    async with run_server(settings) as running:
        await until(lambda: running.service.hub.ready)
        writer = await asyncpg.connect(cluster.dsn(), server_settings={"search_path": "feed"})
        try:
            yield running, writer
        finally:
            writer.terminate()


async def posted(running: Running, writer: Connection, title: str, count: int) -> str:
    """Post some jobs and return the id that a stream ends with once it has seen all of them."""
    wanted = running.service.hub.head + count
    for _ in range(count):
        await writer.execute(INSERT, title)
    await until(lambda: running.service.hub.head >= wanted)
    async with reading(running.url) as reader:
        await reader.until("synced")
        assert reader.last_id is not None
        return reader.last_id


async def resumed(running: Running, cursor: str) -> list[Frame]:
    """The events and the resets that a stream begins with which resumes at `cursor`."""
    async with reading(running.url, headers={"Last-Event-ID": cursor}) as reader:
        opening = await reader.until("synced")
    return [frame for frame in opening if frame.event in ("posted", "updated", "closed", "reset")]


async def check_copy(copy: Cluster, cursors: dict[int, str], unknown: list[str]) -> None:
    """Let the copy go on beyond every cursor, and resume at each: those beyond the copy's own start must reset.

    `cursors` are the original's ids by position; `unknown` are ids of epochs that began after the copy was made.
    """
    async with serving(copy) as (running, writer):
        known = {cursor.split(".")[0] for cursor in cursors.values()}
        await until(lambda: str(running.service.hub.epoch) not in known)
        start = int(await writer.fetchval("SELECT start_position FROM epoch ORDER BY epoch DESC LIMIT 1"))
        assert min(cursors) <= start < max(cursors), "the original has to go on behind the copy"
        await posted(running, writer, "copy", max(cursors) - start + 20)
        kept = {row["position"]: row["job"][3] for row in await writer.fetch("SELECT position, job FROM log")}
        assert "copy" in {kept[position] for position in cursors if position > start}
        for position, cursor in cursors.items():
            frames = await resumed(running, cursor)
            if position > start:
                assert [(frame.event, frame.data["reason"]) for frame in frames] == [("reset", "epoch")], position
            else:
                following = range(position + 1, running.service.hub.head + 1)
                assert [(frame.position, frame.data["title"]) for frame in frames] == [
                    (number, kept[number]) for number in following
                ]
        for cursor in unknown:
            assert [(frame.event, frame.data["reason"]) for frame in await resumed(running, cursor)] == [
                ("reset", "epoch")
            ]


async def test_a_base_backup_taken_under_traffic_resets_who_is_ahead_of_it(
    origin: Cluster, new_cluster: NewCluster
) -> None:
    copy = new_cluster()
    cursors: dict[int, str] = {}
    async with serving(origin) as (running, writer):

        async def note(title: str, count: int) -> None:
            cursor = await posted(running, writer, title, count)
            cursors[int(cursor.split(".")[1])] = cursor

        await note("before", 10)
        taken = asyncio.create_task(asyncio.to_thread(copy.backed_up, origin))
        while not taken.done():
            await note("meanwhile", 1)
        await taken
        for _ in range(5):
            await note("after", 3)
    unknown = []
    await restart(origin, "fast")
    async with serving(origin) as (running, writer):
        unknown.append(await posted(running, writer, "after", 1))
    await asyncio.to_thread(copy.start)
    await check_copy(copy, cursors, unknown)


async def test_a_cold_copy_of_the_files_resets_who_is_ahead_of_it(origin: Cluster, new_cluster: NewCluster) -> None:
    copy = new_cluster()
    cursors: dict[int, str] = {}
    for title in ("before", "restarted", "after"):
        async with serving(origin) as (running, writer):
            for _ in range(3):
                cursor = await posted(running, writer, title, 3)
                cursors[int(cursor.split(".")[1])] = cursor
        await asyncio.to_thread(origin.stop)
        if title == "restarted":
            await asyncio.to_thread(copy.copied, origin)
        if title != "after":
            await asyncio.to_thread(origin.start)
    # The ids of the last three carry an epoch that the copy does not know.
    await asyncio.to_thread(copy.start)
    await check_copy(copy, cursors, [])


async def test_a_promoted_standby_resets_who_is_ahead_of_it(origin: Cluster, new_cluster: NewCluster) -> None:
    standby = new_cluster()
    cursors: dict[int, str] = {}
    async with serving(origin) as (running, writer):
        cursor = await posted(running, writer, "before", 5)
        cursors[5] = cursor
        await asyncio.to_thread(lambda: standby.backed_up(origin, "-R").start())

        async def received() -> bool:
            connection = await asyncpg.connect(standby.dsn(), server_settings={"search_path": "feed"})
            try:
                return bool(await connection.fetchval("SELECT head FROM state") == 7)
            finally:
                connection.terminate()

        cursors[7] = await posted(running, writer, "replicated", 2)
        await until(received)
        await asyncio.to_thread(standby.stop)
        cursors[10] = await posted(running, writer, "lost", 3)
    await asyncio.to_thread(origin.stop, "immediate")
    await asyncio.to_thread(standby.start)
    await asyncio.to_thread(standby.run, "pg_ctl", "-D", str(standby.data), "-w", "promote")
    await check_copy(standby, cursors, [])


async def test_a_plain_restart_resets_nobody(origin: Cluster) -> None:
    cursors: list[str] = []
    async with serving(origin) as (running, _), reading(running.url) as live:
        await live.until("synced")
        seen: list[Frame] = []
        for end in ("fast", "immediate", "kill", "fast"):
            writer = await asyncpg.connect(origin.dsn(), server_settings={"search_path": "feed"})
            await writer.execute(MANY, 3)
            seen += await live.jobs(3)
            cursors.append(str(live.last_id))
            epoch = running.service.hub.epoch
            writer.terminate()
            await restart(origin, end)
            await until(lambda: running.service.hub.epoch != epoch, 60)
        assert [frame.position for frame in seen] == list(range(1, 13))
        assert running.service.hub.generation == 0
        for position, cursor in zip((3, 6, 9, 12), cursors, strict=True):
            frames = await resumed(running, cursor)
            assert [frame.position for frame in frames] == list(range(position + 1, 13))
    # Another process, which knows of the older epochs only by the database.
    await restart(origin, "fast")
    async with serving(origin) as (running, writer):
        await posted(running, writer, "after", 2)
        for position, cursor in zip((3, 6, 9, 12), cursors, strict=True):
            frames = await resumed(running, cursor)
            assert [frame.position for frame in frames] == list(range(position + 1, 15))
