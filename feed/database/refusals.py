"""Refusals: what the database refuses of postings that passed our own checks, and writing the others nevertheless."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import asyncpg
import orjson

from feed.database.connect import MIRRORED
from feed.errors import Fault

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

REFUSALS = (asyncpg.CheckViolationError, asyncpg.NotNullViolationError, asyncpg.DataError)
"""Errors about the content of a row, such as a constraint that the owner of the database has added."""
_MOST = 100
"""Rows that one write may leave out: to find each takes some statements."""


def fault_of(error: asyncpg.PostgresError, index: int | None = None) -> Fault:
    """Return the fault that `error` finds with the posting at `index`."""
    if error.sqlstate == MIRRORED:
        return Fault("source", str(error), index)
    return Fault(error.constraint_name or error.column_name or "posting", str(error), index)


async def write_some(
    connection: Connection,
    rows: str,
    write: Callable[[str], Awaitable[tuple[int, int]]],
    refused: list[Fault],
    first: int = 0,
) -> tuple[int, int]:
    """Write an array of JSON within the connection's transaction, without the rows that the database refuses.

    These are found by halves, and added to `refused`; the first row has the index `first`. Returns the sums of what `write`
    returns. Raises the refusal where there are more than a hundred, and every other error.
    """
    try:
        async with connection.transaction():
            return await write(rows)
    except asyncpg.PostgresError as error:
        given = orjson.loads(rows)
        if not isinstance(error, REFUSALS) and error.sqlstate != MIRRORED:
            raise
        if len(given) == 1:
            if len(refused) == _MOST:
                raise
            refused.append(fault_of(error, first))
            return 0, 0
    half = len(given) // 2
    created, updated = await write_some(connection, orjson.dumps(given[:half]).decode(), write, refused, first)
    more = await write_some(connection, orjson.dumps(given[half:]).decode(), write, refused, first + half)
    return created + more[0], updated + more[1]
