"""`feed attach`: makes a table of somebody else's a live feed."""

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from feed.cli.attach_run import AttachRun, Wanted
from feed.cli.database import DatabaseUrl, DataDir, settings_of, without_password
from feed.model.attach_map import AttachMap

_INTERRUPTED = 130
"""The exit code of a program that Ctrl-C has ended."""


class OnError(StrEnum):
    """What becomes of a write to the table that feed cannot capture."""

    SKIP = "skip"
    ABORT = "abort"


def attach(
    table: Annotated[str, typer.Argument(help="The table, with its schema: public.vacancies.", show_default=False)],
    maps: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="FIELD=EXPR|FILE",
            help="A field of a posting and an SQL expression over the columns, or a "
            "TOML file of them. Repeat it. [default: a guess, which is shown]",
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="EXPR", help="Only rows for which this is true are postings.")
    ] = None,
    closed: Annotated[
        str | None, typer.Option(metavar="EXPR", help="A posting is closed when this is true, or a time.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="COLUMNS", help="Columns that name a row, joined by commas. [default: the primary key]"),
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="NAME", help="The source of its postings. [default: the table's name]")
    ] = None,
    on_error: Annotated[
        OnError | None,
        typer.Option(
            help="A write that feed cannot capture succeeds, and feed catches up later (skip), or it fails (abort). "
            "[default: skip]"
        ),
    ] = None,
    backfill: Annotated[
        bool, typer.Option("--backfill/--no-backfill", help="Whether the rows that are there already become postings.")
    ] = True,
    adopt: Annotated[bool, typer.Option("--adopt", help="Take over postings that have this source already.")] = False,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the GRANTs and DDL for an administrator instead of running them.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Make a table of yours a live feed.

    Its rows become postings that are listed, filtered, read and streamed like any others, and so does every later
    change of it. The code that writes to it does not change, and the table gets nothing but triggers, as do its
    partitions. Its owner's writes never fail because of feed, unless you choose --on-error abort.

    Without --map, a map is guessed from the names and types of the columns. If --map leaves out the title, company
    or url, the rest is guessed as well. A guess is shown with three rows as postings before anything is changed.

    If the table is attached already, the options that are given change its map; `--map FIELD=NULL`, `--where true`
    and `--closed false` take something out of it. What differs is shown first. With nothing to change, an attachment
    that was interrupted goes on.

    \b
    Examples:
      feed attach public.vacancies
      feed attach public.vacancies --map title=headline --map company=firm --map url=link
      feed attach public.vacancies --map "company='Acme'" --map "location=city || ', DE'" --closed 'NOT active'
      feed attach app.stellen --map stellen.toml --where veroeffentlicht --key mandant,nummer
      feed attach app.stellen --sql > for-the-administrator.sql

    \b
    Exit codes:
      0    the table is attached
      1    refused: by the database, or by you when you were asked
      2    the command, the map or the table is wrong, or a guess needs --yes; nothing was changed
      3    the database cannot be reached
      130  interrupted (run the command again to continue)
    """
    settings = settings_of(database_url, data_dir)
    address = {
        "--database-url": None if database_url is None else without_password(database_url)[0],
        "--data-dir": _text(data_dir),
    }
    options = {
        "--key": key, "--source": source, "--on-error": _text(on_error), "--no-backfill": None if backfill else "",
        "--adopt": "" if adopt else None,
    }  # fmt: skip
    wanted = Wanted(
        table=table, map=AttachMap.of(maps or (), where, closed, key), source=source,
        on_error=None if on_error is None else on_error.value, backfill=backfill, adopt=adopt, sql=sql, yes=yes,
        options=options | address,
    )  # fmt: skip
    run = AttachRun(settings, wanted)
    try:
        asyncio.run(run.propose())
        run.ask()
        asyncio.run(run.apply())
    except KeyboardInterrupt:
        run.tell_interrupted()
        raise typer.Exit(_INTERRUPTED) from None


def _text(value: Path | OnError | None) -> str | None:
    return None if value is None else str(value)
