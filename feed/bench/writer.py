"""Writers of postings: by SQL into the database that a feed serves, or by POST; at a pace, and closed at the end."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from feed.bench.spec import MARKER
from feed.client import FeedClient
from feed.database.connect import owned, translated
from feed.settings.settings import load_settings

_INSERT = """
INSERT INTO job (source, external_id, title, company, url)
SELECT 'bench', $1 || '-' || n || '-' || $3::bigint, 'Engineer', 'acme', 'https://acme.example/1'
FROM generate_series($2::bigint, $2::bigint + $4::bigint - 1) n
"""
_CLOSE = """
UPDATE job SET closed_at = clock_timestamp() WHERE source = 'bench' AND external_id LIKE $1 AND closed_at IS NULL
"""
_PAGE = 500
"""Postings in one POST that closes them."""


class Writer(Protocol):
    """Writes numbered events; `run` is in each of them (`spec.MARKER`)."""

    run: str

    async def write(self, number: int, count: int = 1) -> float:
        """Write events in one transaction; returns when that was answered, on the monotonic clock."""


class SqlWriter:
    """Writes by SQL: an INSERT, which is a transaction of its own."""

    def __init__(self, insert: Any, run: str) -> None:
        self.run = run
        self._insert = insert

    async def write(self, number: int, count: int = 1) -> float:
        """Write events in one transaction; returns when the COMMIT was answered."""
        with translated():
            await self._insert.fetch(self.run, number, now_us(), count, timeout=120)
        return time.monotonic()


class PostWriter:
    """Writes by POST: a request for each event, or one for several."""

    def __init__(self, client: FeedClient, run: str) -> None:
        self.run = run
        self._client = client
        self.written: list[str] = []

    async def write(self, number: int, count: int = 1) -> float:
        """Write events in one request; returns when it was answered."""
        stamp = now_us()
        ids = [f"{self.run}-{one}-{stamp}" for one in range(number, number + count)]
        postings = [posting(one) for one in ids]
        await self._client.post(postings[0] if count == 1 else postings)
        self.written += ids
        return time.monotonic()


def posting(external_id: str, **more: str) -> dict[str, Any]:
    """Return the posting that is written: a small one, so that what is measured is the feed."""
    return {
        "source": "bench", "external_id": external_id, "title": "Engineer", "company": "acme",
        "url": "https://acme.example/1", **more,
    }  # fmt: skip


def now_us() -> int:
    """Return the monotonic clock in µs, the stamp of an event; all processes of a machine share it."""
    return time.monotonic_ns() // 1000


def new_run() -> str:
    """Return a name that no other run has."""
    return secrets.token_hex(4)


def marker(run: str) -> str:
    """Return the bytes that every event of a run contains once."""
    return MARKER.format(run=run)


async def pace(writer: Writer, first: int, events: int, rate: float) -> dict[int, float]:
    """Write events one by one at uneven moments, `rate` a second; returns when each was answered."""
    answered = {}
    due = time.monotonic()
    for number in range(first, first + events):
        answered[number] = await writer.write(number)
        due += random.uniform(0.5, 1.5) / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
    return answered


@asynccontextmanager
async def writing(url: str, database_url: str | None) -> AsyncIterator[Writer]:
    """Open a writer by SQL where the database is named, by POST otherwise; its postings are closed on leaving."""
    run = new_run()
    if database_url is None:
        # Over HTTP/1.1 whatever the subscribers speak: servers end an HTTP/2 connection after so many requests.
        async with FeedClient(url) as client:
            writer = PostWriter(client, run)
            try:
                yield writer
            finally:
                closed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                for at in range(0, len(writer.written), _PAGE):
                    await client.post([posting(one, closed_at=closed) for one in writer.written[at : at + _PAGE]])
        return
    async with sql_writer(database_url, run) as by_sql:
        yield by_sql


@asynccontextmanager
async def sql_writer(dsn: str, run: str, *, close: bool = True) -> AsyncIterator[SqlWriter]:
    """Open a writer by SQL; raises DatabaseUnavailable or DatabaseRefused."""
    async with owned(load_settings(database_url=dsn).database, dsn, "bench") as connection:
        with translated():
            insert = await connection.prepare(_INSERT)
        try:
            yield SqlWriter(insert, run)
        finally:
            if close:
                with translated():
                    await connection.execute(_CLOSE, f"{run}-%", timeout=120)
