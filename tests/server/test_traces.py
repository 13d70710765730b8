"""Spans of a running service, kept in memory."""

from collections.abc import Iterator
from typing import Any

import asyncpg
import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import feed.app
from tests.conftest import make_settings, run_server
from tests.reader import reading
from tests.server.postings import MANY
from tests.traces import recorded
from tests.waiting import until


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What services of this test record."""
    traces, exporter = recorded()
    monkeypatch.setattr(feed.app, "traces_of", lambda _: traces)
    yield exporter
    traces.close()


def spans(kept: InMemorySpanExporter, name: str) -> list[dict[str, Any]]:
    """The attributes of all spans of one name."""
    return [dict(span.attributes or {}) for span in kept.get_finished_spans() if span.name == name]


async def test_a_write_is_a_span_with_its_count_size_and_outcome(dsn: str, kept: InMemorySpanExporter) -> None:
    one = {"title": "Baker", "company": "Acme", "url": "https://acme.example/1"}
    async with (
        run_server(make_settings(dsn)) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as client,
    ):
        assert (await client.post("/v1/jobs", json=one)).status_code == 201
        assert (await client.post("/v1/jobs", json=[one, one, one])).status_code == 200
        assert (await client.post("/v1/jobs/1/close")).status_code == 200
        single, many, close = spans(kept, "feed.write")
    assert (single["feed.count"], single["feed.outcome"]) == (1, "written")
    assert (many["feed.count"], many["feed.outcome"]) == (3, "written")
    assert many["feed.bytes"] > single["feed.bytes"] > 0
    assert close["feed.count"] == 1


async def test_a_write_that_fails_says_so(
    dsn: str, kept: InMemorySpanExporter, database: "asyncpg.Connection[Any]"
) -> None:
    await database.execute("ALTER TABLE job ADD CONSTRAINT no_bakers CHECK (title <> 'Baker')")
    posting = {"title": "Baker", "company": "Acme", "url": "https://acme.example/1"}
    async with (
        run_server(make_settings(dsn)) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as client,
    ):
        assert (await client.post("/v1/jobs", json=posting)).status_code == 422
    (span,) = spans(kept, "feed.write")
    assert (span["feed.outcome"], span["feed.error"]) == ("refused", "Invalid")


async def test_a_replay_is_a_span_with_where_it_led_and_what_it_read(
    dsn: str, kept: InMemorySpanExporter, database: "asyncpg.Connection[Any]"
) -> None:
    async with run_server(make_settings(dsn, ring_events=20)) as server:
        await database.execute(MANY, 100)
        await until(lambda: server.service.hub.head == 100)
        async with reading(server.url, "?from=earliest") as reader:
            await reader.until("synced")
        async with reading(server.url, "?last_event_id=90") as reader:
            await reader.until("synced")
        async with reading(server.url) as reader:
            await reader.until("synced")  # at the head: there is nothing to replay
        await until(lambda: len(spans(kept, "feed.replay")) >= 2)
        first, second = spans(kept, "feed.replay")
    assert first == {"feed.from": 0, "feed.to": 100, "feed.events": 100, "feed.source": "log"}
    assert second == {"feed.from": 90, "feed.to": 100, "feed.events": 10, "feed.source": "ring"}
