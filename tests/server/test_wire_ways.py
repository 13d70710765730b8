"""The ways to write events (FEED_FANOUT_WRITER): by each of them every subscriber gets everything, once and in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import asyncpg
import httpx
import pytest
from hyperframe.frame import RstStreamFrame

from feed.errors import ConfigurationError
from feed.wire.native.fanout_writer import choose_writer
from tests.h2client import H2Client, h2client
from tests.processes import serving
from tests.raw import raw_reading

EVENTS = 150
INSERT = (
    "INSERT INTO job (title, company, url, description) VALUES ('Job', 'Acme', 'https://acme.example', repeat('x', $1))"
)


@pytest.fixture(params=["io_uring", "send", "python"])
def way(request: pytest.FixtureRequest) -> str:
    """Each way that works on this machine."""
    try:
        choose_writer(request.param)
    except ConfigurationError as error:
        pytest.skip(str(error))
    return str(request.param)


@asynccontextmanager
async def in_background(*works: Any) -> AsyncIterator[None]:
    """Do some things over and over until the context is left."""

    async def again(work: Any) -> None:
        while True:
            await work()

    tasks = [asyncio.create_task(again(work)) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def test_every_subscriber_gets_every_event_once_and_in_order(
    dsn: str, database: "asyncpg.Connection[Any]", way: str
) -> None:
    """Sockets take a few kilobytes at a time; meanwhile clients come and go, whose descriptors are used again."""
    async with (
        serving(dsn, fanout_writer=way, send_buffer=4096, write_buffer=8192, heartbeat=0.05) as service,
        AsyncExitStack() as stack,
    ):
        readers: list[Any] = [await stack.enter_async_context(raw_reading(service.url, buffer=4096)) for _ in range(4)]
        readers.append(await stack.enter_async_context(raw_reading(service.url, "?company=Acme")))
        clients: list[H2Client] = [await stack.enter_async_context(h2client(service.url)) for _ in range(3)]
        readers += [await client.stream() for client in clients]
        readers += [await clients[0].stream("?company=Acme" if number % 3 else "") for number in range(12)]

        async def come_and_go() -> None:
            async with raw_reading(service.url), h2client(service.url) as visitor:
                await visitor.stream()

        async def ask() -> None:
            client = clients[0]
            await client.ping()
            other = await client.stream()
            await other.events("synced")
            await client.send(RstStreamFrame(other.id, 8))

        async def write() -> None:
            for number in range(EVENTS):
                await database.execute(INSERT, (10, 300, 5_000, 17_000)[number % 4])

        async with in_background(come_and_go, ask):
            *found, _ = await asyncio.gather(*(reader.jobs(EVENTS) for reader in readers), write())
        for jobs in found:
            assert [job.position for job in jobs] == list(range(1, EVENTS + 1))
        async with httpx.AsyncClient() as http:
            metrics = (await http.get(f"{service.url}/metrics")).text
        assert f'feed_fanout_writer{{reason="it was asked for",way="{way}"}} 1.0' in metrics
        assert 'feed_deliveries_total{way="push"} 0.0' not in metrics
        assert service.said == b""
