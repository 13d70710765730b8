"""Postings that were there before: streams say so, and leave them out for those who ask."""

from typing import Any

import asyncpg
import httpx
import pytest

from feed.client import FeedClient
from tests.conftest import Running, make_settings, run_server
from tests.reader import reading
from tests.waiting import until

INSERT = (
    "INSERT INTO job (title, company, url) SELECT $1 || n, 'Acme', 'https://a.example' FROM generate_series(1, $2) n"
)


async def backfill(database: "asyncpg.Connection[Any]", count: int) -> None:
    async with database.transaction():
        await database.execute("SELECT set_config('feed.backfill', 'on', true)")
        await database.execute(INSERT, "old ", count)


async def test_live_streams_with_and_without_backfill(server: Running, database: "asyncpg.Connection[Any]") -> None:
    async with (
        reading(server.url) as everything,
        reading(server.url, "?backfill=false") as news,
        reading(server.url, "?backfill=false&company=acme", http2=True) as filtered,
    ):
        for reader in (everything, news, filtered):
            await reader.until("synced")
        await backfill(database, 3)
        await database.execute(INSERT, "new ", 1)
        told = await everything.jobs(4)
        assert [frame.data.get("backfill") for frame in told] == [True, True, True, None]
        for reader in (news, filtered):
            (frame,) = await reader.jobs(1)
            assert (frame.data["title"], frame.position) == ("new 1", told[-1].position)
            assert "backfill" not in frame.data


@pytest.mark.parametrize("memory", ["ring", "log"])
async def test_a_replay_leaves_backfill_out(dsn: str, database: "asyncpg.Connection[Any]", memory: str) -> None:
    small = {"ring_events": 20, "history_page": 10} if memory == "log" else {}
    async with run_server(make_settings(dsn, **small)) as running:
        await database.execute(INSERT, "new ", 1)
        await backfill(database, 150)
        await database.execute(INSERT, "new ", 1)
        await until(lambda: running.service.hub.head == 152)
        for query, expected in (("backfill=false", 2), ("backfill=false&company=acme", 2), ("backfill=true", 152)):
            async with reading(running.url, f"?from=earliest&{query}") as reader:
                opening = await reader.until("synced")
            told = [frame for frame in opening if frame.event == "posted"]
            assert len(told) == opening[-1].data["replayed"] == expected
            if expected == 2:
                assert [frame.position for frame in told] == [1, 152]


async def test_a_list_has_all_and_carries_the_wish_to_its_stream(
    server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    await backfill(database, 2)
    await until(lambda: server.service.hub.head == 2)
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        page = (await client.get("/v1/jobs?backfill=false&company=acme")).json()
        assert len(page["jobs"]) == 2
        assert "&backfill=false&" in page["stream"]["url"]
        assert len((await client.get("/v1/jobs?backfill=false")).json()["jobs"]) == 2
        assert (await client.get("/v1/jobs?backfill=maybe")).status_code == 422
    async with FeedClient(server.url) as feed:
        async for event in feed.follow(start="earliest"):
            assert event.is_backfill
            break
        await database.execute(INSERT, "new ", 1)
        async for event in feed.follow({"backfill": False}, start="earliest"):
            assert (event.data["title"], event.is_backfill) == ("new 1", False)
            break
