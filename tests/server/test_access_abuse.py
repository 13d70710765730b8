"""What strangers may try: large bodies before the gate, sessions of nobody, endless endings, places for the refused."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from tests.conftest import Running, run_server
from tests.h2client import h2client
from tests.reader import reading
from tests.server.credentials import asking, guarded, make_key
from tests.waiting import until


@pytest.fixture
async def public(dsn: str) -> AsyncIterator[Running]:
    """A service that asks for credentials."""
    async with run_server(guarded(dsn)) as running:
        yield running


async def test_a_large_body_for_a_ticket_is_refused_before_it_is_read(public: Running) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):  # of 64 KiB: less than what a refused request is still read for
            sent += 65_536
            yield b" " * 65_536

    key = await make_key(public)
    async with asking(public, key) as client:
        answer = await client.post("/v1/tickets", content=endless(), headers={"content-type": "application/json"})
        assert answer.status_code == 413, answer.text
    async with asking(public) as stranger:
        assert (await stranger.post("/v1/tickets", content=b"[" * 10_000)).status_code == 401


async def test_what_needs_no_credential_makes_no_session(server: Running, dsn: str) -> None:
    async with asking(server) as client:
        answer = await client.post("/v1/session")
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
    async with run_server(guarded(dsn, reading="open")) as open_to_read, asking(open_to_read) as client:
        assert (await client.get("/v1/jobs")).status_code == 200
        assert (await client.post("/v1/session")).status_code == 401


async def test_an_open_readers_ticket_is_worth_nothing_where_reading_needs_a_credential(
    server: Running, public: Running
) -> None:
    async with asking(server) as client:
        url = (await client.post("/v1/tickets")).json()["url"]
    async with httpx.AsyncClient(base_url=public.url) as client:
        assert (await client.get(url)).status_code == 401


async def test_a_session_that_is_ended_again_and_again_is_one_revocation(
    public: Running, database: "asyncpg.Connection[Any]"
) -> None:
    key = await make_key(public)
    async with asking(public, key) as client:
        cookie = (await client.post("/v1/session")).cookies["feed_session"]
    async with asking(public) as client:
        for _ in range(5):
            answer = await client.delete("/v1/session", headers={"cookie": f"feed_session={cookie}"})
            assert answer.status_code == 204
    assert await database.fetchval("SELECT count(*) FROM feed.revocation WHERE kind = 'session'") == 1


async def test_who_is_refused_takes_nobodys_place_even_without_listening(dsn: str) -> None:
    """A client that opens no window would keep its goodbyes, and with them places, for as long as a stalled one may."""
    settings = guarded(dsn, reading="open", max_streams=3, send_timeout=60)
    async with run_server(settings) as running:
        async with reading(running.url) as one, reading(running.url) as two, reading(running.url) as three:
            for reader in (one, two, three):
                await reader.until("synced")
            async with h2client(running.url, settings={4: 0}) as silent:  # INITIAL_WINDOW_SIZE
                for _ in range(20):
                    await silent.get("/v1/jobs/stream")
                # They have ended, though nobody took their goodbyes.
                await until(lambda: sum(running.service.streams.ended.values()) >= 20)
                assert len(running.service.streams) == 3
        await until(lambda: not running.service.streams)
        async with reading(running.url) as fourth:
            await fourth.until("synced")
