"""`feed attached`: shows the tables that are attached, and what keeps any of them from being up to date."""

import asyncio
import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from feed.cli.database import DatabaseUrl, DataDir, existing_database, settings_of
from feed.cli.messages import clean, say
from feed.database.attachments import AttachedTable, attached_tables
from feed.database.check import check
from feed.database.connect import owned
from feed.settings.settings import Settings

_COLUMNS = ("table", "source", "on error", "rows", "open", "without", "state")
_PLAIN = 200
"""Columns of a table that goes to a file or a pipe."""


def attached(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with the whole map.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show the attached tables.

    Of each: its name, the source of its postings, what happens to a write that cannot be captured, its rows when it
    was last compared with its postings, its open postings, the rows that make no posting (up to a thousand are
    counted), and its state: how far the backfill is, or why it has to be compared again, or why it cannot be.

    Exit codes: 0 done, 1 refused, 2 usage, 3 the database does not answer.

    \b
    Examples:
      feed attached
      feed attached --json | jq 'select(.broken)'
    """
    settings = settings_of(database_url, data_dir)
    found = asyncio.run(_all(settings))
    if as_json:
        for one in found:
            print(json.dumps(_document(one), ensure_ascii=False))
        return
    if not found:
        say("no table is attached: feed attach TABLE makes one a live feed")
        return
    table = Table(box=None, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, overflow="fold", justify="right" if name in ("rows", "open", "without") else "left")
    for one in found:
        name = one.spec.table if one.name is None else one.name
        cells = (name, one.spec.source, one.spec.on_error, f"{one.rows:,}", f"{one.open:,}", _bounded(one.bad))
        table.add_row(*(Text(clean(cell)) for cell in (*cells, state_of(one))))
    Console(width=None if sys.stdout.isatty() else _PLAIN, highlight=False).print(table)


def state_of(one: AttachedTable) -> str:
    """Return in a few words how an attached table is."""
    if one.name is None:
        return f"the table was dropped: feed detach {one.spec.table}"
    if one.ending:
        return f"is being detached; run feed detach {one.name} again if nobody does"
    if one.broken is not None:
        return f"broken: {one.broken}"
    if one.compared_at is None:
        return "backfill waits for feed serve" if one.read is None else f"backfill: {one.read:,} rows read"
    if one.doubts:
        return f"to be compared again: {one.doubt}"
    return f"up to date, compared {one.compared_at:%Y-%m-%d %H:%M}Z"


async def _all(settings: Settings) -> list[AttachedTable]:
    async with existing_database(settings) as dsn:
        await check(settings.database, dsn)
        async with owned(settings.database, dsn, "attached") as connection:
            return await attached_tables(connection)


def _bounded(count: int) -> str:
    return f"{count:,}" if count < 1000 else "1,000+"


def _document(one: AttachedTable) -> dict[str, object]:
    return {
        "table": one.name, "source": one.spec.source, "on_error": one.spec.on_error, "key": list(one.spec.key),
        "map": one.spec.fields, "where": one.spec.where, "closed": one.spec.closed, "rows": one.rows, "open": one.open,
        "without_posting": one.bad, "attached_at": one.attached_at.isoformat(),
        "compared_at": None if one.compared_at is None else one.compared_at.isoformat(), "rows_read": one.read,
        "doubts": one.doubts, "doubt": one.doubt, "broken": one.broken, "ending": one.ending, "state": state_of(one),
    }  # fmt: skip
