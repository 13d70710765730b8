"""`feed migrate`: brings the database's schema up to date."""

import asyncio
from typing import Annotated

import typer

from feed.database.check import check
from feed.database.embedded import embedded
from feed.database.migrate import migrate as apply
from feed.settings.settings import load_settings


def migrate(
    database_url: Annotated[
        str | None,
        typer.Option(help="Where the postings are; DATABASE_URL, or the service's own Postgres, unless given."),
    ] = None,
) -> None:
    """Create or upgrade the feed's schema.

    `feed serve` does the same at its start.

    Exit codes: 0 done, 1 refused, 2 usage, 3 the database does not answer.

    \b
    Examples:
      feed migrate
      feed migrate --database-url postgresql://jobs@db.example/jobs
    """
    settings = load_settings(**({} if database_url is None else {"database_url": database_url}))

    async def run() -> None:
        if settings.database.url is None:
            async with embedded(settings.database.data_dir) as dsn:
                await _apply(dsn)
        else:
            await _apply(settings.database.url)

    async def _apply(dsn: str) -> None:
        await check(settings.database, dsn)
        applied = await apply(settings, dsn)
        for migration in applied:
            typer.echo(f"applied {migration.version:04d} {migration.name}")
        if not applied:
            typer.echo("nothing to do: the schema is up to date")

    asyncio.run(run())
