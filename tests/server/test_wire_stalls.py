"""Clients that stop reading their socket: bounded memory, then a reset and nothing left, and nobody else notices."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from feed.serving.certificate import self_signed
from tests.h2client import STREAM, h2client, insecure
from tests.processes import serving
from tests.raw import raw_reading
from tests.reader import reading
from tests.server.connections import LIST, server_side
from tests.server.memory import LITTLE_SHARED, MIB, Memory, open_streams
from tests.server.postings import BIG
from tests.waiting import until


@asynccontextmanager
async def stalled(url: str, http2: bool, path: str) -> AsyncIterator[int]:
    """Ask for `path` and take next to nothing of the answer: the client's port."""
    if http2:
        async with h2client(url, buffer=4096) as client:
            client.shut = {0}
            exchange = await client.get(path)
            await client.until(lambda: exchange.headers)
            # Windows wide open: what holds the answer up is the socket.
            await client.send(*(bytes((0, 0, 4, 8, 0, 0, 0, 0, number, 0x7F, 0, 0, 0)) for number in (0, exchange.id)))
            yield client.port
    else:
        where = urlsplit(url)
        context = insecure() if where.scheme == "https" else None
        if context is not None:
            context.set_alpn_protocols(["http/1.1"])
        reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=context, limit=1024)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            yield writer.get_extra_info("sockname")[1]
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


@pytest.mark.parametrize(("http2", "tls"), [(False, False), (True, False), (True, True)])
async def test_subscribers_that_stop_reading_cost_little_and_are_cut_off_without_a_trace(
    dsn: str, database: "asyncpg.Connection[Any]", tmp_path: Path, http2: bool, tls: bool
) -> None:
    count, events = 8, 100
    certificate = self_signed(tmp_path, "127.0.0.1") if tls else None
    async with (
        serving(dsn, certificate=certificate, send_timeout=1.5, **LITTLE_SHARED) as service,
        AsyncExitStack() as stack,
    ):
        healthy = await stack.enter_async_context(reading(service.url, verify=False))
        other = await (await stack.enter_async_context(h2client(service.url))).stream()
        await database.execute(BIG, 20)
        await asyncio.gather(healthy.jobs(20), other.jobs(20))  # what is needed once was needed
        ports = [await stack.enter_async_context(stalled(service.url, http2, STREAM)) for _ in range(count)]
        assert all(server_side(service.url, port) == ["01"] for port in ports)
        memory = Memory(service.process.pid)
        for position in range(20, events, 4):
            await database.execute(BIG, 4)
            for reader in (healthy, other):
                assert [job.position for job in await reader.jobs(4)] == list(range(position + 1, position + 5))
        assert memory.growth < count * MIB // 4 + 16 * MIB

        async def alone() -> bool:
            return await open_streams(service.url) == 2

        await until(alone)
        await until(lambda: not any(server_side(service.url, port) for port in ports))
        await database.execute(BIG, 1)
        for reader in (healthy, other):
            assert (await reader.jobs(1))[0].position == events + 1
        assert service.said == b""


@pytest.mark.parametrize(("http2", "tls"), [(False, False), (True, False), (True, True)])
async def test_a_list_that_nobody_reads_is_cut_off_without_a_trace(
    dsn: str, database: "asyncpg.Connection[Any]", tmp_path: Path, http2: bool, tls: bool
) -> None:
    await database.execute(BIG, 100)
    certificate = self_signed(tmp_path, "127.0.0.1") if tls else None
    async with (
        serving(dsn, certificate=certificate, send_timeout=0.5) as service,
        stalled(service.url, http2, LIST) as port,
    ):
        await until(lambda: not server_side(service.url, port), 10)
        assert await open_streams(service.url) == 0
        assert service.said == b""


@pytest.mark.parametrize("postings", [3, 200], ids=["that the kernel takes", "that nobody takes"])
@pytest.mark.parametrize("http2", [False, True])
async def test_a_client_that_reads_nothing_has_the_send_timeout_although_the_peer_timeout_is_shorter(
    dsn: str, database: "asyncpg.Connection[Any]", http2: bool, postings: int
) -> None:
    # To the kernel a window that stays shut is a peer that is gone, however often it answers (TCP_USER_TIMEOUT).
    async with (
        serving(dsn, log_level="info", send_timeout=2.5, peer_timeout=1.0) as service,
        shut(service.url, http2),
    ):
        await database.execute(BIG, postings)
        (line,) = await until(lambda: service.logged("stream ended"), 60)
        assert line["reason"] == "stalled"


@asynccontextmanager
async def shut(url: str, http2: bool) -> AsyncIterator[None]:
    """A stream whose client reads its opening and then nothing, with a receive buffer that is full at once."""
    if http2:
        async with stalled(url, http2, STREAM):
            yield
    else:
        async with raw_reading(url, buffer=4096) as reader:
            await reader.until("synced")
            yield
