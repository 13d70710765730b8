"""Metrics of a running service: of one process, and of workers as if they were one."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from feed.settings.settings import Settings
from tests.conftest import Running, make_settings, run_server
from tests.processes import serving
from tests.reader import reading
from tests.server.postings import INSERT, MANY
from tests.server.scraping import Scrape
from tests.server.worker_processes import spread, successor
from tests.waiting import until

TERM, KILL = signal.SIGTERM, signal.SIGKILL


async def scraped(url: str, name: str, wanted: float, **labels: str) -> Scrape:
    """A scrape in which a series has the value that it comes to."""

    async def found() -> Scrape | None:
        scrape = await Scrape.of(url)
        return scrape if scrape(name, **labels) == wanted else None

    return await until(found, 30)


async def test_streams_are_counted_by_protocol_while_they_are_open_and_by_reason_when_they_end(server: Running) -> None:
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(reading(server.url, http2=http2)) for http2 in (False, False, True)]
        for reader in readers:
            await reader.until("synced")
        scrape = await Scrape.of(server.url)
        assert scrape("feed_streams", protocol="HTTP/1.1") == 2
        assert scrape("feed_streams", protocol="HTTP/2") == 1
        assert scrape("feed_streams_opened_total", protocol="HTTP/1.1") == 2
        assert scrape("feed_subscribers_behind", at_most="0") == scrape("feed_subscribers_behind", at_most="+Inf") == 3
        assert scrape("feed_connections") >= 3
        assert scrape("feed_draining") == 0
    scrape = await scraped(server.url, "feed_streams_ended_total", 3, reason="client")
    assert scrape("feed_streams", protocol="HTTP/1.1") == scrape("feed_streams", protocol="HTTP/2") == 0
    assert scrape("feed_streams_opened_total", protocol="HTTP/2") == 1


async def test_deliveries_and_bytes_are_what_subscribers_read(
    server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    async with reading(server.url) as one, reading(server.url, "?company=nobody") as other:
        await one.until("synced")
        await other.until("synced")
        before = await Scrape.of(server.url)
        await database.execute(MANY, 50)
        frames = await one.jobs(50)
        scrape = await scraped(server.url, "feed_deliveries_total", 50, way="push")
        assert scrape("feed_events_total") == 50
        grown = scrape("feed_delivered_bytes_total", way="push") - before("feed_delivered_bytes_total", way="push")
        assert grown > 50 * len(frames[0].data["title"])
        (first,), (second,) = ([s for s in server.service.streams if s.filters == t] for t in ("", "company=nobody"))
        assert (first.events, second.events) == (50, 0)
        assert first.pushed is second.pushed is server.service.settings.wire.enabled
    async with reading(server.url, "?from=earliest") as late:
        await late.jobs(50)
        scrape = await scraped(server.url, "feed_deliveries_total", 50, way="pull")
        assert scrape("feed_replayed_events_total") == 50
        assert scrape("feed_replays_total", source="ring") == 1
        (stream,) = (stream for stream in server.service.streams if stream.replayed)
        assert stream.bytes > 50 * 100


async def test_the_account_of_a_stream_is_every_byte_of_its_body(
    settings: Settings, database: "asyncpg.Connection[Any]"
) -> None:
    async with run_server(settings) as server:
        await database.execute(MANY, 300)
        await until(lambda: server.service.hub.head == 300)
        async with reading(server.url, "?from=earliest") as reader:
            await reader.jobs(300)
            await reader.until("synced")
            (stream,) = server.service.streams
            await until(lambda: stream.live)
            await database.execute(MANY, 20)
            await reader.jobs(20)
            assert (stream.events, stream.replayed, stream.lag) == (320, 300, 0)
            server.stop.set()
            await reader.until("goodbye")
            assert stream.bytes == reader.response.num_bytes_downloaded


async def test_a_replay_from_the_log_is_told_from_one_of_the_ring(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with run_server(make_settings(dsn, ring_events=10, history_page=100)) as server:
        await database.execute(MANY, 250)
        await until(lambda: server.service.hub.head == 250)  # or they might come live
        for _ in range(2):
            async with reading(server.url, "?from=earliest") as reader:
                await reader.jobs(250)
                await reader.until("synced")
        scrape = await Scrape.of(server.url)
        assert scrape("feed_replays_total", source="log") == 2
        assert scrape("feed_history_pages_total", result="read") >= 3
        assert scrape("feed_history_pages_total", result="hit") >= 2
        assert scrape("feed_history_cache_bytes") > 0


async def test_each_leg_of_the_way_is_timed(server: Running, database: "asyncpg.Connection[Any]") -> None:
    async with reading(server.url) as reader:
        await reader.until("synced")
        await database.execute(INSERT, "timed")
        await reader.jobs(1)
    scrape = await scraped(server.url, "feed_delivery_seconds_count", 1)
    legs = [scrape(f"feed_{leg}_seconds_sum") for leg in ("capture_to_log", "log_to_hub", "hub_to_socket")]
    assert [scrape(f"feed_{leg}_seconds_count") for leg in ("capture_to_log", "log_to_hub", "hub_to_socket")] == [
        1,
        1,
        1,
    ]
    assert all(seconds > 0 for seconds in legs)
    assert scrape("feed_delivery_seconds_sum") > max(legs[0], legs[2])


async def test_what_was_in_the_log_before_the_process_is_not_timed(
    settings: Settings, database: "asyncpg.Connection[Any]"
) -> None:
    await database.execute(MANY, 20)
    await database.fetchval("SELECT head FROM advance(1000)")
    async with run_server(settings) as server:
        async with reading(server.url, "?from=earliest") as reader:
            await reader.jobs(20)
        scrape = await Scrape.of(server.url)
        assert scrape("feed_delivery_seconds_count") == scrape("feed_log_to_hub_seconds_count") == 0
        assert scrape("feed_events_total") == 0


async def test_the_leader_says_how_the_log_and_the_inbox_stand(dsn: str, database: "asyncpg.Connection[Any]") -> None:
    await database.execute(MANY, 20)
    await database.fetchval("SELECT head FROM advance(1000)")
    async with run_server(make_settings(dsn)) as server:
        scrape = await scraped(server.url, "feed_log_head", 20)
        assert scrape("feed_sequencer_leading") == 1
        assert scrape("feed_log_floor") == scrape("feed_inbox_age_seconds") == 0
        assert scrape("feed_log_age_seconds") > 0
        assert 0 <= scrape("feed_notification_queue_usage") < 1
        assert scrape("feed_search_backlog") >= 0
    async with run_server(make_settings(dsn, sequencer=False)) as follower:
        await database.execute(INSERT, "waits")
        assert (await Scrape.of(follower.url))("feed_sequencer_leading") == 0
        await follower.service.log_gauges.read()
        assert (await Scrape.of(follower.url))("feed_inbox_age_seconds") > 0


async def test_requests_are_counted_by_the_template_of_their_route(server: Running) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        for path in ("/v1/jobs/1", "/v1/jobs/2", "/v1/jobs/x", "/nowhere/at/all", "/static/none.js"):
            await client.get(path)
        posting = {"title": "Baker", "company": "Acme", "url": "https://acme.example/1"}
        assert (await client.post("/v1/jobs", json=posting)).status_code == 201
    async with reading(server.url) as reader:
        await reader.until("synced")
        scrape = await Scrape.of(server.url)
        name = "feed_requests_total"
        assert scrape(name, method="GET", route="/v1/jobs/{job_id}", status="404") == 2
        assert scrape(name, method="GET", route="/v1/jobs/{job_id}", status="422") == 1
        assert scrape(name, method="POST", route="/v1/jobs", status="201") == 1
        assert scrape(name, method="GET", route="/v1/jobs/stream", status="200") == 1
        assert not [key for key in scrape.values if "nowhere" in str(key) or "none.js" in str(key)]


async def test_a_lost_database_is_counted_when_it_is_found_again(
    server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    service = server.service
    # Each has made its first connection, which is no reconnect.
    await until(lambda: all(one.reconnects == 0 for one in (service.tailer, service.sequencer, service.retention)))
    assert (await Scrape.of(server.url)).total("feed_database_reconnects_total") == 0
    await database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name IN ('feed tailer', 'feed sequencer', 'feed retention')"
    )
    for part in ("tailer", "sequencer", "retention", "indexer"):
        await scraped(server.url, "feed_database_reconnects_total", 1, part=part)


async def test_workers_are_one_to_whoever_asks_any_of_them(dsn: str, database: "asyncpg.Connection[Any]") -> None:
    async with serving(dsn, flags=("--workers", "2")) as service, AsyncExitStack() as stack:
        curls = [curl for held in (await spread(service, stack)).values() for curl in held]
        await database.execute(MANY, 30)
        for curl in curls:
            for _ in range(30):
                await curl.until("posted")
        for _ in range(6):  # whichever worker it is
            scrape = await scraped(service.url, "feed_deliveries_total", 30 * len(curls), way="push")
            assert scrape.total("feed_streams") == scrape("feed_subscribers_behind", at_most="+Inf") == len(curls)
            assert scrape("feed_sequencer_leading") == 1
            assert scrape("feed_info", version=scrape_version(scrape)) == 1
            assert not [key for key in scrape.values if "pid" in dict(key[1])]
        await scraped(service.url, "feed_log_head", 30)
        service.signal(TERM)
        assert await service.ended() == 0


def scrape_version(scrape: Scrape) -> str:
    """The one version that is told."""
    (found,) = (dict(labels)["version"] for name, labels in scrape.values if name == "feed_info")
    return found


async def test_a_successor_goes_on_counting_and_the_dead_ones_streams_are_gone(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with serving(dsn, flags=("--workers", "2")) as service, AsyncExitStack() as stack:
        held = await spread(service, stack)
        await database.execute(MANY, 10)
        curls = [curl for some in held.values() for curl in some]
        for curl in curls:
            for _ in range(10):
                await curl.until("posted")
        await scraped(service.url, "feed_deliveries_total", 10 * len(curls), way="push")
        workers = service.workers
        last = await Scrape.of(service.url)
        assert last.total("feed_streams") == len(curls)
        os.kill(workers[0], KILL)
        await successor(service, workers)
        left = len(held[workers[1]])

        async def only_the_living() -> Scrape | None:
            nonlocal last
            scrape = await Scrape.of(service.url)
            fallen = {key: (value, scrape.values.get(key)) for key, value in last.counters().items()
                      if not scrape.values.get(key, -1) >= value}  # fmt: skip
            assert not fallen
            last = scrape
            return scrape if scrape.total("feed_streams") == left else None

        await until(only_the_living, 30)
        await database.execute(MANY, 10)
        survivors = held[workers[1]]
        for curl in survivors:
            for _ in range(10):
                await curl.until("posted")
        total = 10 * len(curls) + 10 * left
        await scraped(service.url, "feed_deliveries_total", total, way="push")
        service.signal(TERM)
        assert await service.ended() == 0


async def test_the_shared_folder_goes_with_the_master(dsn: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    async with serving(dsn, flags=("--workers", "2")) as service:
        assert list(tmp_path.glob("feed-metrics-*/counter_0.db")) and list(tmp_path.glob("feed-metrics-*/counter_1.db"))
        service.signal(TERM)
        assert await service.ended() == 0
    assert not list(tmp_path.glob("feed-metrics-*"))


async def test_the_shared_folder_goes_with_the_last_worker_of_a_master_that_was_killed(
    dsn: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    async with serving(dsn, flags=("--workers", "2")) as service:
        service.signal(KILL)
        await service.gone()
    assert not list(tmp_path.glob("feed-metrics-*"))


async def test_what_was_killed_altogether_is_swept_up_by_the_next_and_who_lives_keeps_his(
    dsn: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    async with serving(dsn, flags=("--workers", "2")) as killed:
        killed.signal(KILL, "group")
        await killed.gone()
    (left,) = tmp_path.glob("feed-metrics-*")
    async with serving(dsn, flags=("--workers", "2")) as first, serving(dsn, flags=("--workers", "2")) as second:
        assert not left.exists()
        assert len(list(tmp_path.glob("feed-metrics-*"))) == 2
        for service in (first, second):
            assert (await Scrape.of(service.url)).total("feed_info") == 1
            service.signal(TERM)
            assert await service.ended() == 0
    assert not list(tmp_path.glob("feed-metrics-*"))


async def test_plain_hypercorn_shares_where_it_is_told_to(
    dsn: str, tmp_path: Path, monkeypatch: Any, database: "asyncpg.Connection[Any]"
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    async with serving(dsn, workers=2) as service, AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(reading(service.url)) for _ in range(8)]
        await asyncio.gather(*(reader.until("synced") for reader in readers))
        await database.execute(INSERT, "seen")
        await asyncio.gather(*(reader.jobs(1) for reader in readers))
        scrape = await scraped(service.url, "feed_deliveries_total", 8, way="push")
        assert scrape.total("feed_streams_opened_total") == 8
        assert len(list(tmp_path.glob("counter_*.db"))) == 2
