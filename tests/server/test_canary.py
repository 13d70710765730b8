"""Canaries through a running service: written by the leader, timed in every process, seen by no subscriber."""

import asyncio
from typing import Any

import asyncpg
import httpx

from tests.conftest import Running, make_settings, run_server
from tests.reader import reading
from tests.server.postings import INSERT
from tests.server.scraping import Scrape
from tests.waiting import until


async def ready(url: str) -> tuple[int, dict[str, Any]]:
    """What `/readyz` answers."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        response = await client.get(f"{url}/readyz")
    return response.status_code, response.json()


async def written(database: "asyncpg.Connection[Any]", count: int) -> None:
    """Wait until the log holds so many."""

    async def enough() -> bool:
        return bool(await database.fetchval("SELECT count(*) >= $1 FROM log WHERE kind = 'canary'", count))

    await until(enough, 30)


async def test_none_are_written_unless_they_are_asked_for(server: Running, database: "asyncpg.Connection[Any]") -> None:
    await database.execute(INSERT, "one")
    async with reading(server.url, "?from=earliest") as reader:
        await reader.jobs(1)
    assert await database.fetchval("SELECT count(*) FROM log WHERE kind = 'canary'") == 0
    status, body = await ready(server.url)
    assert (status, body["canary_seconds"], body["reason"]) == (200, None, None)


async def test_subscribers_see_the_postings_around_them_and_their_cursor_moves_on(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with run_server(make_settings(dsn, canary_interval=0.05, heartbeat=0.5)) as server:
        async with reading(server.url) as reader, reading(server.url, "?company=nobody") as narrow:
            await reader.until("synced")
            await narrow.until("synced")
            await written(database, 3)
            await database.execute(INSERT, "first")
            await written(database, 6)
            await database.execute(INSERT, "second")
            frames = await reader.jobs(2)
            assert [frame.data["title"] for frame in frames] == ["first", "second"]
            assert frames[1].position > frames[0].position + 1  # canaries have places of their own
            heartbeat = (await narrow.until("heartbeat"))[-1]
            assert heartbeat.position > 0
        async with reading(server.url, "?from=earliest") as late:
            seen = await late.until("synced")
            assert [frame.data["title"] for frame in seen if frame.event == "posted"] == ["first", "second"]
            assert seen[-1].data["replayed"] == 2
            assert {frame.event for frame in seen} <= {None, "posted", "synced"}
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            assert len((await client.get("/v1/jobs")).json()["jobs"]) == 2


async def test_a_replay_of_canaries_alone_meets_the_head(dsn: str, database: "asyncpg.Connection[Any]") -> None:
    for _ in range(120):
        await database.execute("SELECT canary()")
    await database.fetchval("SELECT head FROM advance(1000)")
    settings = make_settings(dsn, ring_events=5, history_page=50)
    async with run_server(settings) as server, reading(server.url, "?from=earliest") as reader:
        seen = await reader.until("synced")
        assert seen[-1].data == {"position": 120, "replayed": 0}
        await database.execute(INSERT, "then")
        assert [frame.data["title"] for frame in await reader.jobs(1)] == ["then"]


async def test_every_process_times_those_that_the_leader_writes(dsn: str) -> None:
    async with (
        run_server(make_settings(dsn, canary_interval=0.1)) as leader,
        run_server(make_settings(dsn, canary_interval=0.1, sequencer=False)) as follower,
    ):
        for server in (leader, follower):

            async def timed(server: Running = server) -> bool:
                return (await Scrape.of(server.url))("feed_canary_seconds_count") >= 3

            await until(timed, 30)
            status, body = await ready(server.url)
            assert status == 200 and body["canary_seconds"] > 0
            scrape = await Scrape.of(server.url)
            assert scrape("feed_canary_seconds_sum") > 0
            assert 0 < scrape("feed_canary_age_seconds") < 60


async def test_readyz_says_when_they_no_longer_arrive(dsn: str, database: "asyncpg.Connection[Any]") -> None:
    settings = make_settings(dsn, canary_interval=0.1, canary_timeout=2.0)
    async with run_server(settings) as server:
        await written(database, 1)

        async def well() -> bool:
            return (await ready(server.url))[0] == 200

        await until(well, 30)
        # A writer that holds the row of the log's state: all else is well, and nothing gets through.
        holder = await asyncpg.connect(dsn, server_settings={"search_path": "feed"})
        try:
            await holder.execute("BEGIN; SELECT * FROM state FOR UPDATE")

            async def unwell() -> str | None:
                status, body = await ready(server.url)
                reason = body["reason"]
                return reason if status == 503 and reason and "canary" in reason else None

            assert await until(unwell, 30) == "the newest canary is older than 2.1 s"
        finally:
            holder.terminate()
        await until(well, 30)


async def test_a_log_that_a_subscriber_replays_while_they_come_stays_in_order(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with run_server(make_settings(dsn, canary_interval=0.01)) as server, reading(server.url) as reader:
        await reader.until("synced")
        for number in range(60):
            await database.execute(INSERT, f"Job {number}")
            await asyncio.sleep(0)
        frames = await reader.jobs(60)
        assert [frame.data["title"] for frame in frames] == [f"Job {number}" for number in range(60)]
        positions = [frame.position for frame in frames]
        assert positions == sorted(set(positions))
        assert await database.fetchval("SELECT count(*) = max(position) FROM log")
