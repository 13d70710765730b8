"""HTTP/2 windows that stay shut: bounded memory, only the stalled stream reset, nothing lost where they open in time."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hyperframe.frame import WindowUpdateFrame

from tests.conftest import make_settings, run_server
from tests.h2client import h2client
from tests.processes import serving
from tests.reader import reading
from tests.server.memory import LITTLE_SHARED, MIB, Memory, settings_of
from tests.server.postings import BIG, INSERT
from tests.waiting import until


async def test_subscribers_that_open_no_window_cost_little_and_lose_nothing_once_they_do(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    count, events = 12, 80
    async with serving(dsn, **LITTLE_SHARED) as service, AsyncExitStack() as stack:
        healthy = await stack.enter_async_context(reading(service.url))
        clients = [await stack.enter_async_context(h2client(service.url)) for _ in range(count)]
        streams = [await client.stream() for client in clients]
        for client, stream in zip(clients, streams, strict=True):
            client.shut = {0, stream.id}
        await database.execute(BIG, 20)
        await healthy.jobs(20)  # what is needed once was needed
        memory = Memory(service.process.pid)
        for _ in range(20, events, 4):
            await database.execute(BIG, 4)
            await healthy.jobs(4)
        for client in clients:
            await client.ping()
        assert memory.growth < count * MIB // 4 + 16 * MIB
        for client, stream in zip(clients, streams, strict=True):
            client.shut = set()
            taken = len(stream.body)
            assert taken <= 65535
            await client.send(*(WindowUpdateFrame(number, taken) for number in (0, stream.id)))
            jobs = await stream.jobs(events)
            assert [job.position for job in jobs] == list(range(1, events + 1))


@pytest.mark.parametrize("tls", [False, True])
async def test_a_stream_whose_window_stays_shut_is_reset_and_its_neighbour_lives_on(
    dsn: str, database: "asyncpg.Connection[Any]", tmp_path: Path, tls: bool
) -> None:
    settings = settings_of(dsn, tmp_path, tls=tls, send_timeout=0.5)
    async with run_server(settings) as running, h2client(running.url) as client:
        stalled, healthy = await client.stream(), await client.stream()
        client.shut = {stalled.id}
        await database.execute(BIG, 5)
        assert len(await healthy.jobs(5)) == 5
        await stalled.reset()
        assert len(stalled.body) <= 65535
        await until(lambda: len(running.service.streams) == 1)
        await database.execute(INSERT, "still here")
        assert (await healthy.jobs(1))[0].data["title"] == "still here"
        again = await client.stream("?from=earliest")
        assert client.goaway is None
        assert not again.over


async def test_a_connection_whose_window_stays_shut_holds_no_stream_for_long(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with run_server(make_settings(dsn, send_timeout=0.5)) as running, h2client(running.url) as client:
        streams = [await client.stream() for _ in range(3)]
        client.shut = {0}
        await database.execute(BIG, 5)
        for stream in streams:
            await client.until(lambda: client.over or stream.over)
            assert not stream.ended
        await until(lambda: len(running.service.streams) == 0)
        assert not running.service.hub.groups


async def test_a_list_for_which_no_window_opens_is_given_up(dsn: str, database: "asyncpg.Connection[Any]") -> None:
    await database.execute(BIG, 50)
    async with serving(dsn, send_timeout=0.5, **LITTLE_SHARED) as service, h2client(service.url) as client:
        healthy = await client.stream()
        assert len((await (await client.get("/v1/jobs?limit=200")).json())["jobs"]) == 50
        memory = Memory(service.process.pid)
        for _ in range(8):
            stalled, request = client.asking("/v1/jobs?limit=200")
            client.shut = {stalled.id}
            await client.send(request)
            await stalled.reset()
            assert 0 < len(stalled.body) <= 65535
        assert memory.growth < 28 * MIB  # one such body is 5 MB
        await database.execute(INSERT, "still here")
        while (await healthy.jobs(1))[0].data["title"] != "still here":
            pass  # it may have begun before the last of the big ones was sequenced
