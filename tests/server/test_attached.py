"""Attached tables on a running service: their postings stream, replay, list, filter and read as the feed's own do."""

from typing import Any

import asyncpg
import httpx
import pytest

from feed.database.attach import attach
from feed.database.attachments import attached_tables
from feed.database.table_shape import describe
from tests.conftest import Running
from tests.postgres.attaching import VACANCIES, spec
from tests.reader import reading
from tests.waiting import until

ONE = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
async def vacancies(server: Running, database: "asyncpg.Connection[Any]") -> "asyncpg.Connection[Any]":
    """A table with 30 rows, attached while the service runs, which makes postings of them."""
    await database.execute(VACANCIES)
    await database.execute(
        "INSERT INTO shop.vacancies (headline, city) SELECT 'Job ' || n, 'Ulm' FROM generate_series(1, 30) n"
    )
    await attach(database, "feed", spec(), await describe(database, "shop.vacancies"))
    await until(lambda: server.service.hub.head == 30)
    return database


async def test_attached_postings_stream_replay_list_filter_and_are_read_like_the_feeds_own(
    server: Running, vacancies: "asyncpg.Connection[Any]"
) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        listed = (await client.get("/v1/jobs?limit=10&location=ulm&count=true")).json()
        assert (len(listed["jobs"]), listed["about"]) == (10, 30)
        start = listed["stream"]["last_event_id"]
        await vacancies.execute("INSERT INTO shop.vacancies (id, headline, city) VALUES ($1, 'Baker', 'Bonn')", ONE)
        own = (
            await client.post(
                "/v1/jobs", json={"title": "Own", "company": "Acme", "url": "https://a.example", "location": "Bonn"}
            )
        ).json()
        await vacancies.execute("UPDATE shop.vacancies SET headline = 'Cook' WHERE id = $1", ONE)
        await until(lambda: server.service.hub.head == 33)
        async with reading(server.url, f"?location=bonn&last_event_id={start}") as reader:
            frames = [frame for frame in await reader.until("synced") if frame.event in ("posted", "updated")]
            assert [(frame.event, frame.data["title"]) for frame in frames] == [
                ("posted", "Baker"), ("posted", "Own"), ("updated", "Cook"),
            ]  # fmt: skip
            await vacancies.execute("DELETE FROM shop.vacancies WHERE id = $1", ONE)
            closed = (await reader.until("closed"))[-1]
        attached = frames[0].data
        assert (attached["source"], attached["external_id"]) == ("shop.vacancies", ONE)
        assert (closed.data["id"], closed.data["version"], closed.data["reason"]) == (attached["id"], 2, "deleted")
        found = (await client.get("/v1/jobs?location=bonn")).json()["jobs"]
        assert [job["id"] for job in found] == [own["id"]]
        one = listed["jobs"][0]
        read = (await client.get(one["href"])).json()
        assert {name: read[name] for name in one} == one
        assert (await client.get(attached["href"])).status_code == 404


async def test_attached_postings_are_not_written_over_http(
    server: Running, vacancies: "asyncpg.Connection[Any]"
) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        one = (await client.get("/v1/jobs?limit=1")).json()["jobs"][0]
        new = {"title": "x", "company": "x", "url": "https://a.example", "source": "shop.vacancies"}
        for answer in (
            await client.post(f"{one['href']}/close"),
            await client.post("/v1/jobs", json=new),
            await client.post("/v1/jobs", json=[{**new, "external_id": one["external_id"]}]),
            await client.put(f"/v1/jobs/shop.vacancies/{one['external_id']}", json=new),
        ):
            assert answer.status_code == 409, answer.text
            assert "attached table shop.vacancies: write there" in answer.json()["detail"]
        some = (await client.post("/v1/jobs?on_error=skip", json=[new, new | {"source": "own"}])).json()
        assert (some["created"], some["rejected"]) == (1, 1)
        assert (some["errors"][0]["index"], some["errors"][0]["field"]) == (0, "source")


async def test_a_new_partition_and_a_missed_write_are_found_by_the_running_service(
    server: Running, vacancies: "asyncpg.Connection[Any]"
) -> None:
    async with vacancies.transaction():
        await vacancies.execute("ALTER TABLE shop.vacancies DISABLE TRIGGER ALL")
        await vacancies.execute("DELETE FROM shop.vacancies WHERE headline = 'Job 7'")
        await vacancies.execute("ALTER TABLE shop.vacancies ENABLE TRIGGER ALL")
        await vacancies.execute("INSERT INTO attachment_doubt (attachment, why) SELECT id, 'a test' FROM attachment")
    await until(lambda: server.service.hub.head == 31)
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        assert (await client.get("/v1/jobs?q=job+7")).json()["jobs"] == []

    async def settled() -> bool:
        [table] = await attached_tables(vacancies)
        return table.doubts == 0 and table.read is None and table.rows == 29

    await until(settled)
