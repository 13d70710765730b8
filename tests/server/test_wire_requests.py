"""More than a thousand requests on one connection: it stays open, and so do the streams on it."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from tests.conftest import Running
from tests.h2client import h2client
from tests.server.postings import INSERT

REQUESTS = 1_200
"""Over Hypercorn's `keep_alive_max_requests`, which is 1,000."""


async def test_an_http2_connection_and_a_stream_on_it_outlive_a_thousand_requests(
    server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    async with h2client(server.url) as client:
        stream = await client.stream()
        for _ in range(REQUESTS // 50):
            asked = [client.asking("/healthz") for _ in range(50)]
            await client.send(*(request for _, request in asked))
            for exchange, _ in asked:
                assert (await exchange.response()).status == 200
        assert client.goaway is None
        await database.execute(INSERT, "still here")
        assert (await stream.jobs(1))[0].data["title"] == "still here"


async def test_an_http1_connection_outlives_a_thousand_requests(server: Running) -> None:
    where = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        for _ in range(REQUESTS):
            writer.write(f"GET /healthz HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200")
            assert b"connection: close" not in head
            await reader.readuntil(b"}")
    finally:
        writer.close()
        await writer.wait_closed()
