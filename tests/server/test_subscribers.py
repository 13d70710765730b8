"""Operators see every stream of every process on a database, and can end any of them."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import httpx
import pytest

from feed.access.grant import Scope
from feed.database import presence
from feed.fanout import stream_report
from feed.settings.settings import Settings
from tests.cluster import Cluster
from tests.conftest import Running, make_settings, run_server
from tests.processes import Curl, curling, serving
from tests.reader import Reader, reading
from tests.server.draining import STREAM
from tests.server.operators import PATH, asked, key_of, listed
from tests.server.postings import INSERT
from tests.waiting import until


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are tasks of the test write often; workers, which are processes of their own, do not."""
    monkeypatch.setattr(presence, "WRITE_INTERVAL", 0.1)


async def synced(stack: AsyncExitStack, url: str, query: str = "", **how: Any) -> Reader:
    """A stream that is live."""
    reader = await stack.enter_async_context(reading(url, query, **how))
    stack.callback(lambda: reader)  # one that nobody holds closes its response
    await reader.until("synced")
    return reader


async def test_streams_of_every_process_are_listed_by_every_process(
    settings: Settings, database: "asyncpg.Connection[Any]"
) -> None:
    async with run_server(settings) as one, run_server(settings) as two, AsyncExitStack() as stack:
        await synced(stack, one.url, "?tag=a&location=berlin")
        await synced(stack, two.url, http2=True)
        await database.execute(INSERT, "Engineer")
        for url in (one.url, two.url):

            async def told(url: str = url) -> dict[str, Any] | None:
                body = await listed(url, 2, sort="events")
                return body if body["subscribers"][0]["events"] else None

            body = await until(told, 60)
            every, narrow = body["subscribers"]
            assert (every["filter"], narrow["filter"]) == ("", "location=berlin&tag=a")
            assert (every["protocol"], narrow["protocol"]) == ("HTTP/2", "HTTP/1.1")
            assert (every["process"], narrow["process"]) == (two.service.hub.process, one.service.hub.process)
            assert (every["events"], narrow["events"]) == (1, 0)
            assert every["bytes"] > narrow["bytes"] > 0
            assert every["pushed"] and narrow["pushed"]
            assert (every["position"], every["lag"]) == (1, 0)
            assert every["key"] == "open"
            assert every["address"] == "127.0.0.1"
            assert every["since"].endswith("Z")
            assert body["protocols"] == {"HTTP/1.1": 1, "HTTP/2": 1}
            assert (body["pushed"], body["pulled"], body["fault"]) == (2, 0, None)
            assert sum(process["streams"] for process in body["processes"]) == 2


@pytest.mark.parametrize("at_once", [1, 1000])
async def test_the_oldest_come_first_and_no_more_than_asked_for(
    server: Running, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(stream_report, "_SLICE", at_once)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await synced(stack, server.url)
        body = await listed(server.url, 3, sort="age", limit=2)
        assert [one["id"].partition("-")[2] for one in body["subscribers"]] == ["1", "2"]


async def test_a_stream_of_this_process_is_ended_at_once(server: Running) -> None:
    async with AsyncExitStack() as stack:
        reader, other = await synced(stack, server.url), await synced(stack, server.url)
        id = (await listed(server.url, 2, sort="age"))["subscribers"][0]["id"]
        response = await asked(server.url, "DELETE", f"{PATH}/{id}")
        assert (response.status_code, response.json()) == (200, {"id": id, "ended": True})
        last = (await reader.rest())[-1]
        assert (last.event, last.data["reason"]) == ("goodbye", "kicked")
        assert (await listed(server.url, 1))["subscribers"][0]["id"] != id
        assert other.last_id is not None


async def test_a_stream_of_another_process_is_ended_there(settings: Settings) -> None:
    async with run_server(settings) as one, run_server(settings) as two, AsyncExitStack() as stack:
        reader = await synced(stack, two.url)
        id = (await listed(one.url, 1))["subscribers"][0]["id"]
        response = await asked(one.url, "DELETE", f"{PATH}/{id}")
        assert (response.status_code, response.json()) == (202, {"id": id, "ended": False})
        last = (await reader.rest())[-1]
        assert (last.event, last.data["reason"]) == ("goodbye", "kicked")
        await listed(one.url, 0)
        assert (await asked(two.url, "DELETE", f"{PATH}/{id}")).status_code == 404


async def test_what_one_process_reports_of_another_is_as_old_as_it_says(settings: Settings) -> None:
    async with run_server(settings) as one, run_server(settings) as two, AsyncExitStack() as stack:
        await synced(stack, two.url)
        body = await listed(one.url, 1)
        ours, theirs = body["processes"]
        assert (ours["id"], theirs["id"]) == (one.service.hub.process, two.service.hub.process)
        assert theirs["seen_at"] <= ours["seen_at"] <= body["at"]
        assert ours["started_at"] < theirs["started_at"] < theirs["seen_at"]


async def test_of_another_process_the_first_streams_of_each_order_are_listed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "REPORTED_STREAMS", 1)
    async with run_server(settings) as one, run_server(settings) as two, AsyncExitStack() as stack:
        for _ in range(5):
            await synced(stack, two.url)
        assert len((await listed(two.url, 5))["subscribers"]) == 5
        body = await listed(one.url, 5, sort="age")
        assert body["subscribers"][0]["id"] == f"{two.service.hub.process}-1"
        assert 1 <= len(body["subscribers"]) <= 4  # one of each order
        assert body["protocols"] == {"HTTP/1.1": 5}


async def test_after_the_database_was_away_everybody_is_listed_again() -> None:
    cluster = Cluster()
    await asyncio.to_thread(lambda: cluster.create().start())
    try:
        settings = make_settings(cluster.dsn())
        async with run_server(settings) as one, run_server(settings) as two, AsyncExitStack() as stack:
            await synced(stack, two.url)
            await listed(one.url, 1)
            await asyncio.to_thread(cluster.stop, "immediate")
            body = (await asked(one.url)).json()
            assert (body["streams"], len(body["processes"])) == (0, 1)
            assert "database" in body["fault"]
            assert "database" in (await listed(two.url, 1))["fault"]  # and it lists its own stream
            await asyncio.to_thread(cluster.start)
            assert (await listed(one.url, 1))["fault"] is None
    finally:
        await asyncio.to_thread(cluster.remove)


@pytest.mark.parametrize("id", ["nobody-1", "%00", "a" * 64])
async def test_what_nobody_has_is_not_found(server: Running, id: str) -> None:
    response = await asked(server.url, "DELETE", f"{PATH}/{id}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("query", "field"),
    [({"sort": "name"}, "sort"), ({"limit": 0}, "limit"), ({"limit": 1001}, "limit"), ({"x": 1}, "x")],
)
async def test_a_query_that_makes_no_sense_names_the_field(server: Running, query: dict[str, Any], field: str) -> None:
    response = await asked(server.url, **query)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == field


async def test_only_the_scope_admin_may_look_or_kick(dsn: str) -> None:
    async with run_server(make_settings(dsn, reading="keys", writing="keys")) as running:
        for method, path in (("GET", PATH), ("DELETE", f"{PATH}/nobody-1")):
            assert (await asked(running.url, method, path)).status_code == 401
            for scope in (Scope.READ, Scope.WRITE, Scope.METRICS):
                assert (await asked(running.url, method, path, await key_of(running, scope))).status_code == 403
        admin = await key_of(running, Scope.ADMIN)
        assert (await asked(running.url, key=admin)).status_code == 200
        assert (await asked(running.url, "DELETE", f"{PATH}/nobody-1", admin)).status_code == 404


async def test_it_says_whose_key_a_stream_came_with(dsn: str) -> None:
    async with run_server(make_settings(dsn, reading="keys", writing="keys")) as running, AsyncExitStack() as stack:
        key, admin = await key_of(running, Scope.READ), await key_of(running, Scope.ADMIN)
        await synced(stack, running.url, headers={"Authorization": f"Bearer {key}"})
        (one,) = (await asked(running.url, key=admin)).json()["subscribers"]
        assert one["key"] == f"key:{key.split('_')[1]}"
        assert key not in str(one)


async def test_a_page_of_another_site_may_not_kick(server: Running) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        response = await client.delete(f"{PATH}/nobody-1", headers={"Origin": "https://evil.example"})
    assert response.status_code == 403


async def test_a_process_that_has_ended_is_not_missed(settings: Settings) -> None:
    async with run_server(settings) as one:
        async with run_server(settings):
            await until(lambda: _count(one.url, 2), 60)
        body = (await asked(one.url)).json()
        assert (len(body["processes"]), body["missing"]) == (1, [])


async def _count(url: str, processes: int) -> bool:
    return len((await asked(url)).json()["processes"]) == processes


async def test_workers_of_one_service_answer_for_each_other(dsn: str) -> None:
    async with serving(dsn, flags=("--workers", "2")) as service, AsyncExitStack() as stack:
        curls: list[Curl] = []
        hosts: set[int | None] = set()
        body: dict[str, Any] = {}
        while hosts != {0, 1}:  # the kernel spreads connections by hash
            curl = await stack.enter_async_context(curling(service.url + STREAM))
            await curl.until("synced")
            curls.append(curl)
            body = await listed(service.url, len(curls))
            hosts = {one["worker"] for one in body["subscribers"]}
        assert {process["pid"] for process in body["processes"]} == set(service.workers)
        for one in body["subscribers"]:
            assert (await asked(service.url, "DELETE", f"{PATH}/{one['id']}")).status_code in (200, 202)
        for curl in curls:
            frames, code = await curl.rest()
            assert (frames[-1].event, frames[-1].data["reason"], code) == ("goodbye", "kicked", 0)
        service.signal(signal.SIGTERM)
        assert await service.ended() == 0


async def test_a_worker_that_is_stopped_is_named_and_holds_nobody_up(dsn: str) -> None:
    async with serving(dsn, flags=("--workers", "2")) as service:
        await until(lambda: _count(service.url, 2), 60)
        stopped, other = service.workers

        async def other_answers() -> dict[str, Any] | None:
            # By hash a connection may wait for the one that is stopped.
            async with httpx.AsyncClient(base_url=service.url, trust_env=False, timeout=2) as client:
                try:
                    body: dict[str, Any] = (await client.get(PATH)).json()
                except httpx.TimeoutException:
                    return None
            return body if body["missing"] else None

        os.kill(stopped, signal.SIGSTOP)
        try:
            body = await until(other_answers, 60)
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert [process["pid"] for process in body["missing"]] == [stopped]
        assert [process["pid"] for process in body["processes"]] == [other]
        service.signal(signal.SIGTERM)
        assert await service.ended() == 0


async def test_the_probe_tells_when_each_frame_was_sent(server: Running) -> None:
    response = await asked(server.url, path="/v1/probe")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    frames = [block.partition("data: ")[2] for block in response.text.split("\n\n")[:-1]]
    said = [httpx.Response(200, text=frame).json() for frame in frames]
    assert [one["number"] for one in said] == [1, 2, 3]
    assert said[0]["after_ms"] == 0
    assert said[2]["after_ms"] - said[1]["after_ms"] >= 299
    assert said[0]["client"] == "127.0.0.1"


async def test_more_probes_than_a_process_bears_are_told_to_come_back(server: Running) -> None:
    async with httpx.AsyncClient(
        base_url=server.url, trust_env=False, timeout=30, limits=httpx.Limits(max_connections=None)
    ) as client:
        answers = await asyncio.gather(*(client.get("/v1/probe") for _ in range(130)))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert {answer.status_code for answer in refused} == {429}
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        assert len(answers) - len(refused) >= 100
        assert (await client.get("/v1/probe")).status_code == 200
