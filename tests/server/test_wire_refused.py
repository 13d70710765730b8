"""Streams that are refused over HTTP/2: where the goodbye does not fit, the stream is reset and its neighbours live on."""

from typing import Any

import asyncpg
from hyperframe.frame import WindowUpdateFrame

from tests.conftest import make_settings, run_server
from tests.h2client import ENHANCE_YOUR_CALM, STREAM, Exchange, H2Client, h2client
from tests.processes import serving
from tests.server.test_stream import INSERT
from tests.server.test_stream_replay import BIG
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
        wires: list[Any] = [stream._wire for stream in running.service.streams]
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
        line = (await until(lambda: service.logged("stream ended")))[0]
        assert (line["address"], line["protocol"], line["reason"]) == ("127.0.0.1", "HTTP/2", "full")
