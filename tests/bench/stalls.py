"""Clients that stall, in three ways: what each costs here and in the kernel, and when it is gone."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from feed.bench.usage import resident_bytes
from feed.bench.writer import new_run, sql_writer
from tests.bench.section import Bench, Section, at_most
from tests.bench.services import feed
from tests.h2client import STREAM, H2Client, h2client

COST = 256.0
_SEND_TIMEOUT = 8.0
_EVENTS = 20_000
"""More than fits anywhere: 11 MB."""
KINDS = {
    "HTTP/1.1, nothing is read": (False, True),
    "HTTP/2, nothing is read": (True, True),
    "HTTP/2, read, and no window is opened": (True, False),
}


async def section(bench: Bench) -> Section:
    """All three; each on a service of its own."""
    clients = 20 if bench.quick else 100
    page = Section(
        "stalls",
        f"{clients} clients that stall while {_EVENTS:,} events come, KB each",
        {"who": "", "here": "in the process", "kernel": "in the kernel", "gone": "s until the last is gone"},
    )
    for name, (http2, deaf) in KINDS.items():
        bench.say(f"stalls: {name}")
        here, kernel, gone = await measure(bench, clients, http2, deaf)
        page.add(at_most(here + kernel, COST, " KB"), who=name, here=here, kernel=kernel, gone=gone)
    page.notes.append(f"send_timeout is {_SEND_TIMEOUT:g} s here. In the kernel: bytes that wait to be sent.")
    return page


async def measure(bench: Bench, clients: int, http2: bool, deaf: bool) -> tuple[float, float, float]:
    """KB in the process and in the kernel, each, at the worst moment; seconds from the last event to the last eviction."""
    dsn = await bench.dsn()
    async with (
        feed(dsn, bench.cores, send_timeout=_SEND_TIMEOUT, ring_events=1_000, joined_bytes=2**20) as server,
        sql_writer(dsn, new_run(), close=False) as writer,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as client,
        AsyncExitStack() as stack,
    ):

        async def streams() -> int:
            return int((await client.get("/readyz")).json()["streams"])

        await writer.write(0, _EVENTS)  # what all share is there, and counted before
        await asyncio.sleep(2)
        for _ in range(clients):
            await stack.enter_async_context(stalled(server.url, http2, deaf))
        while await streams() < clients:
            await asyncio.sleep(0.05)
        before = resident_bytes(server.pid)
        writing = asyncio.create_task(writer.write(_EVENTS, _EVENTS))
        here = kernel = 0
        ended = None
        while ended is None or await streams():
            here, kernel = max(here, resident_bytes(server.pid) - before), max(kernel, unsent(server.url))
            await asyncio.sleep(0.1)
            if ended is None and writing.done():
                ended = time.monotonic()
        return here / clients / 1024, kernel / clients / 1024, time.monotonic() - ended


@asynccontextmanager
async def stalled(url: str, http2: bool, deaf: bool) -> AsyncIterator[None]:
    """A subscriber that stops once it is live: reading, or opening windows."""
    where = urlsplit(url)
    if http2:
        async with h2client(url, buffer=4096 if deaf else None) as client:
            client.shut = {0}
            exchange = await client.get(STREAM)
            await client.until(lambda: exchange.headers)
            if deaf:  # windows wide open: what holds the stream up is the socket
                await client.send(*(bytes((0, 0, 4, 8, 0, 0, 0, 0, one, 0x7F, 0, 0, 0)) for one in (0, exchange.id)))
                yield
                return
            client.shut = {0, exchange.id}
            reading = asyncio.create_task(_taking(client))
            try:
                yield
            finally:
                reading.cancel()
                await asyncio.wait([reading])
        return
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=1024)
    try:
        writer.write(f"GET {STREAM} HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
        await reader.readline()
        yield
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _taking(client: H2Client) -> None:
    """Read whatever comes, for ever."""
    with contextlib.suppress(OSError, TimeoutError):
        await client.until(lambda: False, 600)


def unsent(url: str) -> int:
    """Bytes in the send queues of a server's connections."""
    port = f":{urlsplit(url).port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(line[4].partition(":")[0], 16) for line in lines if line[1].endswith(port))
