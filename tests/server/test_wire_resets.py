"""Streams that their clients reset: freed at once; and those who reset too many are told to calm down."""

from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from hyperframe.frame import DataFrame, Frame, RstStreamFrame, WindowUpdateFrame

from tests.conftest import make_settings, run_server
from tests.h2client import ENHANCE_YOUR_CALM, STREAM, h2client
from tests.processes import serving
from tests.reader import reading
from tests.server.connections import LIST
from tests.server.memory import LITTLE_SHARED, MIB, Memory
from tests.server.postings import BIG, INSERT
from tests.waiting import until

CANCEL = 8


async def test_a_connection_outlives_more_than_a_thousand_streams_that_were_reset(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with serving(dsn, h2_resets=10_000) as service, h2client(service.url) as client:
        stays = await client.stream()
        memory = None
        for turn in range(16):
            if turn == 4:
                memory = Memory(service.process.pid)
            for _ in range(4):
                opened = [client.asking(STREAM) for _ in range(25)]
                await client.send(*(request for _, request in opened))
                for exchange, _ in opened:
                    await client.until(lambda: exchange.body)
                await client.send(*(RstStreamFrame(exchange.id, CANCEL) for exchange, _ in opened))
            await client.ping()
        assert client.goaway is None
        late = await client.stream()
        await database.execute(INSERT, "still here")
        for exchange in (stays, late):
            assert (await exchange.jobs(1))[0].data["title"] == "still here"
        assert memory
        assert memory.growth < 8 * MIB


async def test_a_response_that_is_reset_half_way_leaves_nothing_in_memory(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    await database.execute(BIG, 50)
    async with serving(dsn, **LITTLE_SHARED) as service, h2client(service.url) as client:
        await (await client.get(LIST)).response()
        client.shut = set(range(1, 100))
        memory = Memory(service.process.pid)
        for _ in range(16):
            exchange = await client.get(LIST)
            await client.until(lambda: exchange.body)
            await client.send(RstStreamFrame(exchange.id, CANCEL))
            await client.ping()
        assert memory.growth < 30 * MIB  # each is 5 MB
        assert client.goaway is None


def reset(stream_id: int) -> list[Frame]:
    """The client resets a stream."""
    return [RstStreamFrame(stream_id, CANCEL)]


def overflow(stream_id: int) -> list[Frame]:
    """A window over 2^31 - 1 octets: the server must reset the stream (RFC 9113, 6.9.1)."""
    return [WindowUpdateFrame(stream_id, 2**31 - 1)]


def data_after_the_end(stream_id: int) -> list[Frame]:
    """DATA behind END_STREAM: the server must answer with STREAM_CLOSED (RFC 9113, 5.1)."""
    return [DataFrame(stream_id, b"more")]


@pytest.mark.parametrize("provoke", [reset, overflow])
async def test_a_client_that_has_too_many_streams_reset_is_sent_away(
    dsn: str, database: "asyncpg.Connection[Any]", provoke: Callable[[int], list[Frame]]
) -> None:
    # CVE-2023-44487 (rapid reset) and CVE-2025-8671 (the client makes the server reset).
    settings = make_settings(dsn, h2_resets=50, h2_reset_rate=1)
    async with (
        run_server(settings) as running,
        reading(running.url, http2=True) as innocent,
        h2client(running.url) as client,
    ):
        await innocent.until("synced")
        for _ in range(40):
            exchange, request = client.asking(STREAM)
            await client.send(request, *provoke(exchange.id))
        await client.ping()
        patient = await client.stream()  # so many may be
        assert client.goaway is None
        for _ in range(40):
            exchange, request = client.asking(STREAM)
            client.writer.write(b"".join(frame.serialize() for frame in (request, *provoke(exchange.id))))
        await client.closed()
        assert client.goaway == ENHANCE_YOUR_CALM
        assert not patient.ended
        await until(lambda: len(running.service.streams) == 1)
        await database.execute(INSERT, "still here")
        assert (await innocent.jobs(1))[0].data["title"] == "still here"


async def test_data_behind_the_end_of_a_stream_cannot_be_sent_for_ever(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    settings = make_settings(dsn, h2_resets=50, h2_reset_rate=1)
    async with (
        run_server(settings) as running,
        reading(running.url, http2=True) as innocent,
        h2client(running.url) as client,
    ):
        await innocent.until("synced")
        for _ in range(80):
            exchange, request = client.asking(STREAM)
            client.writer.write(b"".join(frame.serialize() for frame in (request, *data_after_the_end(exchange.id))))
        await client.closed()
        assert client.goaway
        await until(lambda: len(running.service.streams) == 1)
        await database.execute(INSERT, "still here")
        assert (await innocent.jobs(1))[0].data["title"] == "still here"
