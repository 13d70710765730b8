"""Postings in, events out: what the database tests say again and again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from feed.database.log import READ, events_of
from feed.model.event import Event

Connection = asyncpg.Connection

LAST = 2**62


@asynccontextmanager
async def opened(dsn: str, schema: str = "feed") -> AsyncIterator[Connection]:
    """A connection with the feed's schema on the path; gone on leaving."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": schema})
    try:
        yield connection
    finally:
        connection.terminate()


async def add(connection: Connection, title: str, **fields: Any) -> int:
    """Insert one posting and return its id."""
    row = {"title": title, "company": "Acme", "url": "https://acme.example"} | fields
    names = ", ".join(row)
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    return int(await connection.fetchval(f"INSERT INTO job ({names}) VALUES ({places}) RETURNING id", *row.values()))


async def logged(connection: Connection, after: int = 0) -> list[Event]:
    """The log's events behind `after`."""
    return events_of(await connection.fetch(READ, after, LAST))


async def advance(connection: Connection, batch: int = 10_000) -> asyncpg.Record:
    """One call of advance()."""
    row = await connection.fetchrow("SELECT * FROM advance($1)", batch)
    assert row is not None
    return row


async def advanced(connection: Connection, batch: int = 10_000) -> list[Event]:
    """Advance until nothing is left to move, and return what came."""
    before = int(await connection.fetchval("SELECT head FROM state"))
    while (await advance(connection, batch))["more"]:
        pass
    return await logged(connection, before)


def titles(events: list[Event]) -> list[str]:
    """The titles, in the order of the log."""
    return [event.job["title"] for event in events]


def dense(events: list[Event], first: int = 1) -> bool:
    """Whether the positions follow one another without a gap."""
    return [event.position for event in events] == list(range(first, first + len(events)))
