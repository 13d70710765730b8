"""The database away, restarted and killed under open streams: late, never lost."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import asyncpg
import httpx
import pytest

from tests.cluster import Cluster, start_again
from tests.conftest import make_settings, run_server
from tests.reader import reading
from tests.server.postings import INSERT
from tests.waiting import until


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A cluster to stop and kill; created, not started."""
    made = Cluster().create()
    try:
        yield made
    finally:
        made.remove()


async def insert(cluster: Cluster, title: str) -> None:
    """Commit one posting."""
    writer = await asyncpg.connect(cluster.dsn(), server_settings={"search_path": "feed"})
    try:
        await writer.execute(INSERT, title)
    finally:
        await writer.close()


async def readiness(client: httpx.AsyncClient, status: int) -> dict[str, object]:
    """What /readyz says once it answers with `status`."""

    async def said() -> httpx.Response | None:
        answer = await client.get("/readyz")
        return answer if answer.status_code == status else None

    found: dict[str, object] = (await until(said)).json()
    return found


async def test_the_service_starts_without_its_database_and_works_when_it_comes(own_cluster: Cluster) -> None:
    async with (
        run_server(make_settings(own_cluster.dsn(), log_level="error")) as running,
        httpx.AsyncClient(base_url=running.url, trust_env=False) as client,
    ):
        assert (await client.get("/healthz")).status_code == 200
        said = await readiness(client, 503)
        assert said["ready"] is False
        assert said["draining"] is False
        assert "does not answer" in str(said["database"])
        for http2 in (False, True):
            # A 503 would end a browser's EventSource for good.
            for query in ("", "?from=earliest", "?since=1h", "?last_event_id=3"):
                async with reading(running.url, query, http2=http2) as reader:
                    frames = await reader.rest()
                    assert [frame.event for frame in frames] == ["goodbye"]
                    assert frames[0].data["reason"] == "unavailable"
                    assert frames[0].retry == frames[0].data["retry_ms"] > 0
        for answer in (
            await client.get("/v1/jobs"),
            await client.get("/v1/jobs/1"),
            await client.post("/v1/jobs", json={"title": "a", "company": "b", "url": "https://c.example"}),
        ):
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["retry-after"]
            assert answer.json()["status"] == 503

        await start_again(own_cluster)
        assert (await readiness(client, 200))["database"] == "ok"
        async with reading(running.url) as reader:
            await reader.until("synced")
            await insert(own_cluster, "at last")
            assert [frame.data["title"] for frame in await reader.jobs(1)] == ["at last"]


@pytest.mark.parametrize("end", ["fast", "immediate", "kill"])
async def test_a_restart_of_the_database_loses_nothing_and_ends_no_stream(own_cluster: Cluster, end: str) -> None:
    await start_again(own_cluster)
    settings = make_settings(own_cluster.dsn(), heartbeat=0.5, ring_events=3, history_page=2, log_level="error")
    async with (
        run_server(settings) as running,
        httpx.AsyncClient(base_url=running.url, trust_env=False) as client,
        AsyncExitStack() as stack,
    ):
        readers = [await stack.enter_async_context(reading(running.url, http2=n % 2 == 0)) for n in range(4)]
        for reader in readers:
            await reader.until("synced")
        for n in range(5):
            await insert(own_cluster, f"before {n}")
        await until(lambda: running.service.hub.head == 5)
        if end == "kill":
            own_cluster.kill()
        else:
            await asyncio.to_thread(own_cluster.stop, end)
        assert "database" in await readiness(client, 503)
        # Who comes now wants what is not in memory: the stream waits for it, and says that it lives.
        late = await stack.enter_async_context(reading(running.url, "?last_event_id=0"))
        assert (await late.until("heartbeat"))[-1].position == 0
        await start_again(own_cluster)
        for n in range(5):
            await insert(own_cluster, f"after {n}")
        await readiness(client, 200)
        for reader in (*readers, late):
            frames = await reader.jobs(10)
            assert [frame.position for frame in frames] == list(range(1, 11))
            assert [frame.data["title"] for frame in frames] == [
                *(f"before {n}" for n in range(5)),
                *(f"after {n}" for n in range(5)),
            ]


async def test_connections_that_the_server_ends_are_made_anew(own_cluster: Cluster) -> None:
    await start_again(own_cluster)
    async with (
        run_server(make_settings(own_cluster.dsn(), log_level="error")) as running,
        reading(running.url) as reader,
    ):
        await reader.until("synced")
        admin = await asyncpg.connect(own_cluster.dsn())
        for n in range(3):
            await admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name LIKE 'feed %' AND pid <> pg_backend_pid()"
            )
            await insert(own_cluster, f"Job {n}")
            assert [frame.data["title"] for frame in await reader.jobs(1)] == [f"Job {n}"]
        await admin.close()
