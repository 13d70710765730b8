"""A log full of postings that differ, and clients that replay it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg

NARROW = (
    "company=company+78", "tag=tag-17", "location=city+5", "q=reliability+77", "salary_min=89900&currency=EUR",
    "near=52.52,13.405&radius_km=30", "seniority=senior&tag=tag-3", "event=closed", "company=nobody",
)  # fmt: skip
"""Filters that match a small part of the postings, or none."""
BROAD = "workplace=hybrid"
"""A filter that matches a third of them."""

_FILL = """
INSERT INTO job (source, external_id, title, company, url, location, country, workplace, employment_type, seniority, tags,
                 salary_min, salary_max, currency, salary_period, latitude, longitude)
SELECT 'bench', n::text, 'Senior Site Reliability Engineer ' || n % 1000, 'Company ' || n % 5000,
       'https://acme.example/jobs/' || n, 'City ' || n % 300 || ', Germany', 'Germany',
       (ARRAY['hybrid', 'onsite', 'remote'])[1 + n % 3], 'full-time', 'senior', ARRAY['python', 'tag-' || n % 50],
       50000 + n % 40000, 50000 + n % 40000, 'EUR', 'year', 45 + (n % 3000) / 200.0, 13.405
  FROM generate_series($1::bigint, $2::bigint) n
"""
_BATCH = 1_000
"""Postings in one transaction."""
_PATIENCE = 600
"""Seconds for one replay."""


async def fill(dsn: str, postings: int) -> None:
    """Write postings, and wait until all of them are in the log."""
    async with _connected(dsn) as connection:
        goal = postings + await connection.fetchval("SELECT head FROM state")
        for first in range(1, postings + 1, _BATCH):
            await connection.execute(_FILL, first, min(first + _BATCH - 1, postings))
        async with asyncio.timeout(_PATIENCE):
            while await connection.fetchval("SELECT head FROM state") < goal:
                await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a client was sent from the earliest event to the head."""

    events: int
    bytes: int


async def replay(url: str, query: str = "") -> Replayed:
    """Read a stream from the earliest event until it is live."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=2**20)
    try:
        writer.write(
            f"GET /v1/jobs/stream?from=earliest{query and '&'}{query} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
        )
        events = size = 0
        last = b""
        async with asyncio.timeout(_PATIENCE):
            while b"event: synced" not in last:
                data = await reader.read(2**18)
                if not data or (not size and b" 200" not in data[:13]):
                    raise RuntimeError(f"a replay ended: {(last + data)[-200:].decode(errors='replace')}")
                size += len(data)
                events += data.count(b"\ndata: ")
                last = last[-20:] + data
    finally:
        writer.close()
    return Replayed(events, size)


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "feed"})
    try:
        yield connection
    finally:
        await connection.close()
