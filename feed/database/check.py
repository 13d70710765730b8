"""What a database must be able to do before it can carry a feed; every refusal says what to change."""

import asyncpg

from feed.database.connect import POOLER, connect, translated
from feed.errors import DatabaseRefused
from feed.settings.database import DatabaseSettings

STANDBY = (
    "DATABASE_URL leads to a standby (it is in recovery), where LISTEN and writes are impossible. Give feed the primary's "
    "address, or several hosts with target_session_attrs=read-write."
)

DROPPED = (
    "DATABASE_URL goes through a pooler that drops the settings a client asks for (ignore_startup_parameters). Give feed "
    "the database's own address (usually port 5432), or have the role bring them: "
    "ALTER ROLE <role> SET search_path = {schema}, pg_temp;"
)


async def check(settings: DatabaseSettings, dsn: str) -> None:
    """Raise DatabaseRefused for a standby or a pooler that shares connections between transactions."""
    first = await connect(settings, dsn, "check")
    try:
        with translated():
            if await first.fetchval("SELECT pg_is_in_recovery()"):
                raise DatabaseRefused(STANDBY)
            if await _pooled(first, settings, dsn):
                raise DatabaseRefused(POOLER)
            if not (await first.fetchval("SHOW search_path")).replace('"', "").startswith(f"{settings.schema_name},"):
                raise DatabaseRefused(DROPPED.format(schema=settings.schema_name))
    finally:
        first.terminate()


async def _pooled(first: "asyncpg.Connection[asyncpg.Record]", settings: DatabaseSettings, dsn: str) -> bool:
    """Whether the backend behind `first` changes when another client holds the one it used last.

    A pooler announces process ids of its own, so a session whose backend is the announced one needs no second look.
    """
    backend = await first.fetchval("SELECT pg_backend_pid()")
    if backend == first.get_server_pid():
        return False
    second = await connect(settings, dsn, "check")
    try:
        async with second.transaction():
            await second.fetchval("SELECT 1")
            return bool(await first.fetchval("SELECT pg_backend_pid()") != backend)
    finally:
        second.terminate()
