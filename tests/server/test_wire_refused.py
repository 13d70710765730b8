"""Streams that are refused over HTTP/2: where the goodbye does not fit, the stream is reset and its neighbours live on."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from hyperframe.frame import WindowUpdateFrame

from feed.app import Application
from feed.hypercorn_adapter.connection import reset_on_close
from feed.wire.pacer import Pacer
from tests.conftest import make_settings, run_server
from tests.h2client import ENHANCE_YOUR_CALM, STREAM, Exchange, H2Client, h2client
from tests.processes import serving
from tests.server.callers import calling
from tests.server.connections import server_side
from tests.server.postings import BIG, INSERT
from tests.waiting import until

INITIAL_WINDOW_SIZE = 4


async def hear(database: "asyncpg.Connection[Any]", *streams: Exchange) -> None:
    """Each of these streams gets what is posted now."""
    await database.execute(INSERT, "still here")
    for stream in streams:
        while (await stream.jobs(1))[0].data["title"] != "still here":
            pass


async def opened_by_hand(client: H2Client) -> Exchange:
    """A stream whose client has to open its window first."""
    stream, request = client.asking(STREAM)
    await client.send(request, WindowUpdateFrame(stream.id, 65_535))
    await stream.events("synced")
    return stream


async def test_a_refused_stream_leaves_its_neighbours_where_the_connection_window_is_shut(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with run_server(make_settings(dsn, max_streams=2)) as running, h2client(running.url) as client:
        siblings = [await client.stream() for _ in range(2)]
        opening = sum(stream.taken for stream in siblings)
        client.shut = {0}
        await database.execute(BIG, 2)
        await client.until(lambda: sum(stream.taken for stream in siblings) - opening == 65_535)
        assert await (await client.get(STREAM)).reset() == ENHANCE_YOUR_CALM
        client.shut = set()
        await client.send(WindowUpdateFrame(0, 65_535))
        await hear(database, *siblings)
        assert client.goaway is None


async def test_a_refused_stream_leaves_its_neighbours_where_its_own_window_is_shut(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with (
        run_server(make_settings(dsn, max_streams=2)) as running,
        h2client(running.url, settings={INITIAL_WINDOW_SIZE: 0}) as client,
    ):
        siblings = [await opened_by_hand(client) for _ in range(2)]
        assert await (await client.get(STREAM)).reset() == ENHANCE_YOUR_CALM
        await hear(database, *siblings)
        assert client.goaway is None


async def test_a_refused_stream_leaves_its_neighbours_while_the_service_drains(dsn: str) -> None:
    async with (
        run_server(make_settings(dsn, drain_deadline=60)) as running,
        h2client(running.url, settings={INITIAL_WINDOW_SIZE: 0}) as client,
    ):
        slow, request = client.asking(STREAM)
        await client.send(request)
        await client.until(lambda: slow.headers)  # it waits for a window, and the drain waits for it
        quick = await opened_by_hand(client)
        running.stop.set()
        assert [event.event for event in await quick.rest()] == ["goodbye"]
        assert await (await client.get(STREAM)).reset() == ENHANCE_YOUR_CALM
        await client.send(WindowUpdateFrame(slow.id, 65_535))
        assert (await slow.rest())[-1].event == "goodbye"
        await running.ended


async def test_a_refused_stream_leaves_its_neighbours_where_the_socket_is_full(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with (
        run_server(make_settings(dsn, max_streams=2, write_buffer=1024)) as running,
        h2client(running.url, buffer=4096, settings={INITIAL_WINDOW_SIZE: 2**31 - 1}) as client,
    ):
        siblings = [await client.stream() for _ in range(2)]
        await client.send(WindowUpdateFrame(0, 2**31 - 1 - 65_535))
        client.shut = {0, *(stream.id for stream in siblings)}
        await client.ping()
        await database.execute(BIG, 60)
        wires: list[Any] = [stream.wire for stream in running.service.streams]
        await until(lambda: all(wire._get_size() > wire._limit for wire in wires))
        refused = [client.asking(STREAM) for _ in range(50)]
        await client.send(*(request for _, request in refused))
        for exchange, _ in refused:
            await client.until(lambda: exchange.over)
        await hear(database, *siblings)
        assert client.goaway is None


async def test_a_stream_that_was_refused_before_anybody_asked_who_it_is_is_logged_with_its_address_and_protocol(
    dsn: str,
) -> None:
    async with serving(dsn, log_level="info", max_streams=1) as service, h2client(service.url) as client:
        await client.stream()
        await (await client.get(STREAM)).response()
        line = (await until(lambda: service.logged("streams refused")))[0]
        assert (line["last_address"], line["last_protocol"], line["full"]) == ("127.0.0.1", "HTTP/2", 1)


async def test_many_refused_streams_are_logged_in_a_line_a_second(dsn: str) -> None:
    async with serving(dsn, log_level="info", max_streams=1) as service, h2client(service.url) as client:
        await client.stream()
        for _ in range(50):
            await (await client.get(STREAM)).response()
        await until(lambda: sum(line["full"] for line in service.logged("streams refused")) == 50)
        assert len(service.logged("streams refused")) < 25
        assert not service.logged("stream ended")


async def test_who_has_too_many_streams_refused_is_told_to_calm_down_and_then_sent_away(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    settings = make_settings(dsn, max_streams=2, refusals=5, refusal_rate=1, h2_resets=100, h2_reset_rate=1)
    async with run_server(settings) as running, h2client(running.url) as neighbour, h2client(running.url) as client:
        other, own = await neighbour.stream(), await client.stream()
        asked = []
        for number in range(12):
            exchange = await client.get("/v1/jobs/%73tream" if number % 2 else f"{STREAM}?company=Acme")
            await client.until(lambda: exchange.over)
            asked.append(exchange)
        assert asked[0].ended  # it was told why
        calmed = [exchange for exchange in asked if exchange.error is not None]
        assert calmed
        assert {exchange.error for exchange in calmed} == {ENHANCE_YOUR_CALM}
        assert not any(exchange.headers for exchange in calmed)
        await hear(database, other, own)
        assert client.goaway is None
        for _ in range(200):
            client.writer.write(client.asking(STREAM)[1].serialize())
        await client.closed()
        assert client.goaway == ENHANCE_YOUR_CALM
        await hear(database, other)


async def test_the_refused_streams_of_an_address_count_together_whatever_connections_they_came_on(dsn: str) -> None:
    settings = make_settings(dsn, limits_exempt=(), stream_rate="2/hour", refusals=5, refusal_rate=1, h2_resets=1000)
    async with run_server(settings) as running, AsyncExitStack() as stack:
        calmed = 0
        for _ in range(10):
            client = await stack.enter_async_context(h2client(running.url))
            exchange = await client.get(STREAM)
            await client.until(lambda: exchange.over or exchange.body)
            calmed += exchange.error == ENHANCE_YOUR_CALM
        assert calmed
        async with calling(running.url) as call:
            call.writer.write(f"GET {STREAM} HTTP/1.1\r\nHost: feed\r\n\r\n".encode() * 20)
            assert (await call.closed()).count(b"HTTP/1.1") < 20  # it is hung up on


async def test_what_a_client_asked_for_that_is_gone_is_never_begun(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[str] = []
    gate, waiting = asyncio.Event(), asyncio.Event()
    serve, wait = Application.__call__, Pacer.admitted

    async def noted(self: Application, scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope.get("path", ""))
        await serve(self, scope, receive, send)

    async def held(self: Pacer, count: int = 1) -> None:
        waiting.set()
        await gate.wait()
        await wait(self, count)

    monkeypatch.setattr(Application, "__call__", noted)
    async with run_server(make_settings(dsn)) as running:
        async with h2client(running.url) as client, calling(running.url) as call:
            await client.ping()
            assert await call.served()
            before = len(paths)
            monkeypatch.setattr(Pacer, "admitted", held)
            await client.send(*(client.asking("/gone")[1] for _ in range(50)))
            await waiting.wait()
            waiting.clear()
            call.writer.write(b"GET /gone HTTP/1.1\r\nHost: feed\r\n\r\n" * 5)
            await waiting.wait()
            ports = [one.writer.get_extra_info("sockname")[1] for one in (client, call)]
            for one in (client, call):
                reset_on_close(one.writer.get_extra_info("socket"))
        for port in ports:
            await until(lambda: not server_side(running.url, port))
        gate.set()
        async with calling(running.url) as late:
            assert await late.served()
        assert paths[before:] == ["/healthz"]
