"""Migrations: numbered `.sql` files, applied in order under a lock, each once, with a checksum."""

import hashlib
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

import asyncpg

from feed.database.connect import RIGHTS, owned, translated
from feed.database.locking import unobtrusively
from feed.errors import DatabaseRefused
from feed.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, its name and its text."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, so that a file edited after the fact is noticed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """The files that come with this version, in order."""
    folder = resources.files("feed.database") / "migrations"
    found = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return sorted(
        (Migration(int(entry.name[:4]), entry.name[5:-4], entry.read_text("utf-8")) for entry in found),
        key=lambda migration: migration.version,
    )


AGAIN = "run feed migrate again"
"""What to do where a step did not get a lock."""

_TABLE = """
CREATE TABLE IF NOT EXISTS migration (
  version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp())
"""


async def migrate(settings: Settings, dsn: str) -> list[Migration]:
    """Bring the schema up to date and return what was applied.

    Raises DatabaseRefused when the database is newer than the code, was migrated by other files, or lacks rights, and
    DatabaseUnavailable when somebody holds on to a table that is to change.
    """
    async with owned(settings.database, dsn, "migrate") as connection:
        with translated():
            applied = await _migrate(connection, settings)

            async def extend() -> None:
                await connection.execute(
                    "SELECT extend_log($1, $2)", settings.log.partition, settings.log.partitions_ahead
                )

            await unobtrusively(connection, "the log's new partitions", extend, AGAIN)
            return applied


async def _migrate(connection: Any, settings: Settings) -> list[Migration]:
    if await connection.fetchval("SHOW server_encoding") != "UTF8":
        raise DatabaseRefused("the database's encoding is not UTF8; create one with ENCODING 'UTF8' and use that.")
    if connection.get_server_version().major < 14:
        raise DatabaseRefused("feed needs Postgres 14 or newer.")
    lock = "hashtext('feed migrate'), hashtext($1)"
    await connection.execute(f"SELECT pg_advisory_lock({lock})", settings.database.schema_name)
    try:
        # IF NOT EXISTS asks for the right to create even where nothing is to be created.
        if not await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", settings.database.schema_name):
            await connection.execute(f'CREATE SCHEMA "{settings.database.schema_name}"')
        # A schema closed to the role drops out of its search_path, and what is created goes to the temporary one.
        if not await connection.fetchval(
            "SELECT has_schema_privilege($1, 'USAGE') AND has_schema_privilege($1, 'CREATE')",
            settings.database.schema_name,
        ):
            raise DatabaseRefused(
                f"the role may not create anything in the schema {settings.database.schema_name}. {RIGHTS}"
            )
        await connection.execute(_TABLE)
        rows = await connection.fetch("SELECT version, name, checksum FROM migration ORDER BY version")
        done = {row["version"]: row for row in rows}
        ours = migrations()
        _compare(ours, done)
        applied = [migration for migration in ours if migration.version not in done]
        for migration in applied:
            what = f"migration {migration.version} ({migration.name})"
            await unobtrusively(connection, what, partial(_apply, connection, migration), AGAIN)
        return applied
    finally:
        await connection.execute(f"SELECT pg_advisory_unlock({lock})", settings.database.schema_name)


async def _apply(connection: Any, migration: Migration) -> None:
    await connection.execute(migration.sql)
    await connection.execute(
        "INSERT INTO migration (version, name, checksum) VALUES ($1, $2, $3)",
        migration.version, migration.name, migration.checksum,
    )  # fmt: skip


def _compare(ours: list[Migration], done: dict[int, asyncpg.Record]) -> None:
    newest = max(done, default=0)
    if newest > ours[-1].version:
        raise DatabaseRefused(
            f"the database is at migration {newest}, this feed knows {ours[-1].version}: it was upgraded by a newer "
            "version. Run that version, or restore a backup made before the upgrade."
        )
    for migration in ours:
        row = done.get(migration.version)
        if row is not None and row["checksum"] != migration.checksum:
            raise DatabaseRefused(
                f"migration {migration.version} ({row['name']}) was applied in another form than the one shipped here. "
                "Run the version that applied it, or use another schema (FEED_SCHEMA)."
            )
