"""`feed doctor`: checks a database and an address, and says what to do."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from feed.cli.client_options import Key
from feed.cli.database import DataDir, settings_of
from feed.cli.exit_codes import Exit
from feed.cli.messages import clean
from feed.doctor.address import examine_address
from feed.doctor.database import embedded_dsn, examine_database
from feed.doctor.fanout import examine_fanout
from feed.doctor.finding import Finding, Verdict, fail
from feed.settings.settings import Settings

_COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}
_PLAIN = 160
"""Columns of a table that goes to a file or a pipe."""


def doctor(
    url: Annotated[
        str | None, typer.Argument(help="The feed to check, as its clients reach it.", show_default=False)
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(help="The database to check. [default: DATABASE_URL; without URL also the embedded Postgres]"),
    ] = None,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of the findings.")] = False,
    key: Key = None,
) -> None:
    """Check what a feed needs, and say what to do about what it lacks.

    Of the database (run it where `feed serve` runs, with its settings): connection, version, rights, schema,
    triggers, sequencer, retention, notifications, connections, clocks, keys. It changes nothing there. Of this
    machine: how events are written to subscribers. Of a URL: name, port, TLS, HTTP/2, health, clock, and whether
    a proxy on the way holds frames back.

    \b
    Examples:
      feed doctor
      feed doctor https://jobs.example.org
      DATABASE_URL=postgresql://... feed doctor https://jobs.example.org --json

    \b
    Exit codes:
      0  nothing failed (there may be warnings)
      1  something failed
      2  the command or a setting is wrong
    """
    settings = settings_of(database_url, data_dir)
    findings = asyncio.run(_examine(settings, url, key))
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(findings, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
    else:
        _print(findings)
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        raise typer.Exit(Exit.FAILED)


async def _examine(settings: Settings, url: str | None, key: str | None) -> list[Finding]:
    findings: list[Finding] = []
    dsn = settings.database.url
    if dsn is None and url is None:
        dsn = embedded_dsn(settings.database.data_dir)
        if dsn is None:
            found = f"there is no DATABASE_URL, and no Postgres runs in {settings.database.data_dir}"
            findings.append(fail("database", found, "Set DATABASE_URL, or start feed serve, or give a URL to check."))
    if dsn is not None:
        findings += await _all(examine_database(settings, dsn))
        findings.append(examine_fanout(settings))
    if url is not None:
        findings += await _all(examine_address(url, key))
    return findings


async def _all(findings: AsyncIterator[Finding]) -> list[Finding]:
    return [finding async for finding in findings]


def _print(findings: list[Finding]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PLAIN)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("CHECK", no_wrap=True)
    table.add_column("VERDICT", no_wrap=True)
    table.add_column("FOUND", ratio=1, overflow="fold")
    table.add_column("WHAT TO DO", ratio=1, overflow="fold")
    for finding in findings:
        verdict = Text(finding.verdict.value, _COLOURS[finding.verdict])
        table.add_row(Text(clean(finding.check)), verdict, Text(clean(finding.found)), Text(clean(finding.todo)))
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)
