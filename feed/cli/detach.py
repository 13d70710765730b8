"""`feed detach`: ends the attachment of a table."""

import asyncio
from typing import Annotated

import typer

from feed.cli.database import DatabaseUrl, DataDir, existing_database, settings_of
from feed.cli.messages import say
from feed.database.attach import detach as end
from feed.database.attachments import AttachedTable, attached_tables
from feed.database.check import check
from feed.database.connect import owned
from feed.errors import NotFound
from feed.settings.settings import Settings

_INTERRUPTED = 130
"""The exit code of a program that Ctrl-C has ended."""


def detach(
    table: Annotated[
        str, typer.Argument(help="The table, or the source of its postings, as `feed attached` shows it.")
    ],
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave its postings as they are, instead of closing those that are open.")
    ] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """End the attachment of a table, and close its postings.

    The triggers and functions that feed made for the table go, also where the table belongs to somebody else or was
    dropped. The table itself stays as it is. With --keep the postings stay open, and can be written from then on like
    any others.

    \b
    Examples:
      feed detach public.vacancies
      feed detach public.vacancies --keep

    \b
    Exit codes:
      0    the table is not attached any more
      1    refused, or the table was not attached
      2    the command is wrong
      3    the database cannot be reached, or somebody held a lock on the table (run the command again)
      130  interrupted (run the command again to continue)
    """
    settings = settings_of(database_url, data_dir)
    try:
        found, closed = asyncio.run(_detach(settings, table, keep=keep))
    except KeyboardInterrupt:
        say("interrupted: run the same command again to continue")
        raise typer.Exit(_INTERRUPTED) from None
    kept = f"its {found.open:,} open postings stay" if keep else f"{closed:,} postings were closed"
    say(f"{found.name or found.spec.table} is not attached any more; {kept}")


async def _detach(settings: Settings, table: str, *, keep: bool) -> tuple[AttachedTable, int]:
    async with existing_database(settings) as dsn:
        await check(settings.database, dsn)
        async with owned(settings.database, dsn, "detach") as connection:
            found = _found(await attached_tables(connection), table)
            return found, await end(connection, settings.database.schema_name, found.number, keep=keep)


def _found(all_of_them: list[AttachedTable], table: str) -> AttachedTable:
    """Return the attachment that is meant; raises NotFound, which lists those that there are."""
    for one in all_of_them:
        names = {one.spec.source, one.spec.table, one.name or one.spec.table}
        if table in names or f"public.{table}" in names:
            return one
    others = ", ".join(one.name or one.spec.table for one in all_of_them) or "none"
    raise NotFound(f"{table} is not attached. Attached tables: {others}")
