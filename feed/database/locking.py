"""Changes of tables that others use: the locks that they need are waited for briefly, and again."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from feed.errors import DatabaseUnavailable

T = TypeVar("T")

LOCK_TIMEOUT = 1.0
"""Seconds for which a change waits for a table's lock; for so long, everybody else waits behind it."""
LOCK_PAUSE = 2.0
"""Seconds between two attempts, in which the others have the table to themselves."""
SILENCE = 5.0
"""Seconds after which the database ends a step from which it hears nothing, so that a stopped process keeps no lock."""
LOCK_ATTEMPTS = 10
"""Attempts to get the locks that one step needs."""


async def unobtrusively(
    connection: Any, what: str, step: Callable[[], Awaitable[T]], then: str, attempts: int | None = None
) -> T:
    """Run `step` in a transaction, again where it does not get a lock in time.

    A statement that waits for a table's lock makes everybody wait who comes later, so behind one long reader all writers
    would stand still. Raises DatabaseUnavailable after the last attempt (LOCK_ATTEMPTS unless given); its text says that
    `what` could not be applied, and to end long transactions and then to do `then`.
    """
    attempts = LOCK_ATTEMPTS if attempts is None else attempts
    for attempt in range(1, attempts + 1):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = {round(LOCK_TIMEOUT * 1000)}")
                await connection.execute(f"SET LOCAL idle_in_transaction_session_timeout = {round(SILENCE * 1000)}")
                return await step()
        except asyncpg.LockNotAvailableError:
            if attempt < attempts:
                await asyncio.sleep(LOCK_PAUSE)
    raise DatabaseUnavailable(
        f"{what} could not be applied: in {attempts} attempts somebody held a lock on a table that it changes. End "
        f"long transactions on that table (pg_stat_activity shows them), then {then}."
    )
