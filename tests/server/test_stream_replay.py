"""From the log to live: under load, past the ring, at a slow subscriber's pace, and behind retention's back."""

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from feed.database.retention import prune
from feed.fanout.history import History
from tests.conftest import Connect, Running, make_settings, run_server
from tests.raw import RawReader, raw_reading
from tests.reader import Frame, Reader, reading
from tests.server.postings import BIG, MANY, fill
from tests.waiting import until

SMALL = {"ring_events": 20, "history_page": 10, "subscriber_buffer": 64 * 1024}
"""So little memory that replay has to read the log."""


def count_reads(history: History, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """A list that grows by (after, upto) with every page that is read from the log."""
    pages: list[tuple[int, int]] = []
    read = history.reader.read

    async def counted(after: int, upto: int) -> Any:
        pages.append((after, upto))
        return await read(after, upto)

    monkeypatch.setattr(history.reader, "read", counted)
    return pages


@pytest.mark.parametrize("memory", ["ring", "log"])
async def test_replay_meets_live_under_load_without_a_gap_or_a_repeat(
    dsn: str, connect: Connect, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    settings = make_settings(dsn, **(SMALL if memory == "log" else {}))
    database = await connect()
    async with run_server(settings) as running:
        await fill(running, database, 300)
        pages = count_reads(running.service.sources.history, monkeypatch)
        stop = asyncio.Event()

        async def write() -> None:
            writer, hub = await connect(), running.service.hub
            while not stop.is_set():
                head = hub.head
                await writer.execute(MANY, 3)
                # As fast as the feed carries it, not faster: those who come late must be able to catch up.
                await until(lambda: hub.head > head)

        async def follow(cursor: int, http2: bool) -> list[int]:
            async with reading(running.url, f"?last_event_id={cursor}", http2=http2) as reader:
                frames = [frame for frame in await reader.until("synced") if frame.event == "posted"]
                while not frames or frames[-1].position < cursor + 400:
                    frames += await reader.jobs(1)
            return [frame.position for frame in frames]

        writers = [asyncio.create_task(write()) for _ in range(2)]
        try:
            cursors = list(range(0, 300, 25))
            read = await asyncio.gather(*(follow(cursor, n % 2 == 1) for n, cursor in enumerate(cursors)))
        finally:
            stop.set()
            await asyncio.gather(*writers)
        for cursor, positions in zip(cursors, read, strict=True):
            assert positions == list(range(cursor + 1, cursor + len(positions) + 1))
        assert bool(pages) is (memory == "log")


async def test_replay_past_the_ring_reads_shared_pages(
    dsn: str, database: "asyncpg.Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_server(make_settings(dsn, **SMALL)) as running:
        await fill(running, database, 100)
        pages = count_reads(running.service.sources.history, monkeypatch)
        async with AsyncExitStack() as stack:
            readers = [
                await stack.enter_async_context(reading(running.url, f"?last_event_id={n % 10}", http2=n % 2 == 0))
                for n in range(20)
            ]
            for n, frames in enumerate(await asyncio.gather(*(reader.until("synced") for reader in readers))):
                positions = [frame.position for frame in frames if frame.event == "posted"]
                assert positions == list(range(n % 10 + 1, 101))
        assert len(pages) == len(set(pages)) <= 10
        assert all(after % 10 == 0 for after, _ in pages)


async def test_a_filter_counts_as_replayed_only_what_it_was_given(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with run_server(make_settings(dsn, **SMALL)) as running:
        await fill(running, database, 95)
        async with reading(running.url, "?q=job+7&from=earliest") as reader:
            frames = await reader.until("synced")
        titles = [frame.data["title"] for frame in frames if frame.event == "posted"]
        assert titles == ["Job 7", *(f"Job 7{n}" for n in range(10))]
        assert frames[-1].data == {"position": 95, "replayed": 11}


async def test_a_slow_subscriber_is_served_from_the_log_and_still_gets_everything(
    dsn: str, database: "asyncpg.Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_server(make_settings(dsn, **SMALL)) as running:
        hub = running.service.hub
        pages = count_reads(running.service.sources.history, monkeypatch)
        async with raw_reading(running.url) as slow, reading(running.url, http2=True) as quick:
            await slow.until("synced")
            await quick.until("synced")
            sent = 0
            fell_behind = None
            while fell_behind is None or hub.ring.covers(fell_behind):
                await database.execute(BIG, 10)
                sent += 10
                assert [frame.position for frame in await quick.jobs(10)] == list(range(sent - 9, sent + 1))
                if fell_behind is None and hub.counters.overruns:
                    fell_behind = sent
                assert sent < 500, "the subscriber was never behind"
            assert [frame.position for frame in await slow.jobs(sent)] == list(range(1, sent + 1))
            assert pages
            await fill(running, database, 1)
            assert [frame.position for frame in await slow.jobs(1)] == [sent + 1]


async def flood(running: Running, database: "asyncpg.Connection[Any]", reader: Reader, streams: int) -> int:
    """Post big jobs until only so many streams are left, and let `reader` read along; returns how many."""
    sent = 0
    while len(running.service.streams) > streams:
        assert sent < 500, "nobody was cut off"
        await database.execute(BIG, 10)
        sent += 10
        assert len(await reader.jobs(10)) == 10
    return sent


async def test_a_subscriber_that_stops_reading_is_cut_off_hurts_nobody_and_can_resume(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with run_server(make_settings(dsn, send_timeout=0.3)) as running:
        async with raw_reading(running.url) as stalled, reading(running.url, http2=True) as healthy:
            await healthy.until("synced")
            frames = await stalled.until("synced")
            sent = await flood(running, database, healthy, 1)
            seen = await until_cut(stalled)
        positions = [frame.position for frame in frames + seen if frame.event == "posted"]
        assert positions == list(range(1, len(positions) + 1))
        assert len(positions) < sent
        async with reading(running.url, headers={"Last-Event-ID": stalled.last_id or ""}) as resumed:
            rest = await resumed.jobs(sent - len(positions))
            assert [frame.position for frame in rest] == list(range(len(positions) + 1, sent + 1))


async def until_cut(reader: RawReader) -> list[Frame]:
    """What can still be read of a stream that was cut off."""
    seen = []
    try:
        while (frame := await reader.frame()) is not None:
            seen.append(frame)
    except ConnectionError:
        return seen
    raise AssertionError("the stream ended as if all were well")


async def test_a_connection_that_was_cut_leaves_nothing_in_the_kernel(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    # A plain abort would leave megabytes in FIN-WAIT-1 (HYPERCORN.md, Connections): linger 0 drops them with an RST.
    async with (
        run_server(make_settings(dsn, send_timeout=0.3)) as running,
        raw_reading(running.url) as stalled, reading(running.url) as healthy,
    ):  # fmt: skip
        await healthy.until("synced")
        await stalled.until("synced")
        await flood(running, database, healthy, 1)
        error = await until(lambda: stalled.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        assert ConnectionResetError(error, "").errno == error


async def repartition(database: "asyncpg.Connection[Any]") -> None:
    """Drop the partitions of the empty log, so that the service makes its own, of the size in its settings."""
    for part in await database.fetch(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = 'log'::regclass"
    ):
        await database.execute(f"DROP TABLE {part['name']}")


async def test_a_commit_larger_than_the_partitions_made_ahead_flows_all_the_same(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    await repartition(database)
    async with run_server(make_settings(dsn, log_partition=100, log_partitions_ahead=1, log_level="error")) as running:
        await fill(running, database, 555)
        async with reading(running.url, "?from=earliest") as reader:
            assert [frame.position for frame in await reader.jobs(555)] == list(range(1, 556))


async def test_retention_that_overtakes_a_replay_resets_it(dsn: str, database: "asyncpg.Connection[Any]") -> None:
    settings = make_settings(dsn, **SMALL, log_partition=50, retention_events=5, housekeeping=3600, history_cache=1)
    await repartition(database)
    async with run_server(settings) as running:
        await fill(running, database, 1)
        await database.execute(BIG, 240)
        await until(lambda: running.service.hub.head == 241)
        async with raw_reading(running.url, "?from=earliest") as slow:
            begun = [await slow.frame() for _ in range(4)]
            assert begun[2] is not None and begun[2].position == 1
            assert await prune(database, settings) == 4
            before = (await slow.until("reset"))[:-1]
            positions = [1, 2, *(frame.position for frame in before)]
            assert positions == list(range(1, len(positions) + 1))
            assert len(positions) < 236
            assert slow.last_id == f"{running.service.hub.epoch}.241"
            assert (await slow.until("synced"))[-1].data["position"] == 241
            await fill(running, database, 1)
            assert [frame.position for frame in await slow.jobs(1)] == [242]
