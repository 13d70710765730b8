"""`feed source`: the public boards from which a feed fetches postings."""

import asyncio
import json
import sys
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from feed.cli.database import DatabaseUrl, DataDir, settings_of
from feed.cli.messages import clean, say
from feed.cli.new_source import adapter_named, new_source, terms_of
from feed.cli.plain_table import print_table
from feed.cli.preview_table import PreviewTable
from feed.cli.source_store import find_source, stored_source, with_store
from feed.cli.source_table import SourceTable
from feed.database.sources import SourceStore
from feed.errors import ConfigurationError
from feed.ingest.fetcher import opened
from feed.ingest.preview import Preview, preview
from feed.model.source import NewSource, Source
from feed.model.source_document import source_document, sources_document

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    help="Add, list, check and remove public boards to fetch.",
)  # fmt: skip

Name = Annotated[str, typer.Argument(metavar="NAME:BOARD", help="The source, as `feed source list` shows it.")]
NewName = Annotated[
    str, typer.Argument(metavar="NAME:BOARD", help="The kind of board and the board: greenhouse:acme, rss:https://...")
]
Url = Annotated[
    str | None, typer.Option(metavar="URL", help="Fetch this instead of the board's own address: a mirror, a test.")
]
MapFile = Annotated[
    Path | None,
    typer.Option(
        "--map", metavar="FILE", help="For json: the TOML file that maps its records, as for `feed post --map`."
    ),
]
AcceptTerms = Annotated[
    bool, typer.Option("--accept-terms", help="You may fetch this board, although its terms keep it off by default.")
]


@app.command()
def add(
    name: NewName,
    url: Url = None,
    map_file: MapFile = None,
    accept_terms: AcceptTerms = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Fetch a board from now on.

    Its postings are kept as the board has them. `feed serve` fetches it within seconds, and then every 15 minutes to 6
    hours, less often while nothing changes. The postings of the first fetch are marked as backfill: subscribers who want
    news alone leave them out. A posting closes when two complete lists in a row were without it.

    Exit codes: 0 done, 1 refused, 2 usage, 3 the database does not answer.

    \b
    Examples:
      feed source add greenhouse:acme
      feed source add lever:acme
      feed source add personio:acme
      feed source add remotive:all
      feed source add rss:https://acme.example/jobs.rss
      feed source add jsonld:https://acme.example/careers/baker
      feed source add json:https://acme.example/jobs.json --map acme.toml
    """
    new = new_source(name, url, map_file, accept_terms=accept_terms)
    source = with_store(database_url, data_dir, lambda store: store.add(new), prepare=True)
    say(f"{source.name} is added. `feed serve` fetches it within seconds; `feed source list` then tells how it went.")
    for line in terms_of(source):
        say(f"its terms: {line}")


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show all sources and how they are doing.

    OPEN counts open postings. POSTED, UPDATED and CLOSED are of the last fetch that changed anything. A source is new (not
    fetched yet), ok, suspect (its list has lost so much that nothing is closed), failing (the last fetch failed) or paused.

    \b
    Examples:
      feed source list
      feed source list --json | jq 'select(.state == "failing") | .name'
    """
    found = with_store(database_url, data_dir, lambda store: store.list())
    if as_json:
        for one in found:
            print(json.dumps(source_document(one), ensure_ascii=False))
        return
    if not found:
        say("there are no sources yet: feed source add greenhouse:acme")
        return
    table = SourceTable("feed source list")
    table.update(sources_document(found, datetime.now(UTC)))
    print_table(table, Console(highlight=False))


@app.command()
def check(
    name: NewName,
    url: Url = None,
    map_file: MapFile = None,
    accept_terms: AcceptTerms = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Fetch a board once and show what would happen.

    Nothing is written. It shows what would be posted, updated and closed, three postings, those that cannot be read and why,
    and the board's terms. The board need not be a source yet; of one that is, --url and --map try others than it has.

    Exit codes: 0 done, 1 the board cannot be fetched or read, 2 usage, 3 the database does not answer.

    \b
    Examples:
      feed source check greenhouse:acme
      feed source check json:https://acme.example/jobs.json --map acme.toml
    """
    settings = settings_of(database_url, data_dir)

    def given() -> NewSource:
        return new_source(name, url, map_file, accept_terms=accept_terms)

    async def run() -> Preview:
        source, known = await stored_source(settings, name)
        if source is None:
            new = given()
            source = Source(**{field.name: getattr(new, field.name) for field in fields(NewSource)})
        elif url is not None or map_file is not None:
            tried = given()
            source = replace(source, url=tried.url, host=tried.host, mapping=tried.mapping)
        adapter = adapter_named(source.adapter, source.mapping)
        async with opened(settings.ingest) as fetcher:
            return await preview(source, adapter, fetcher, known)

    with Console(stderr=True).status(f"fetching {clean(name)}"):
        found = asyncio.run(run())
    print_table(PreviewTable(found), Console(highlight=False))


@app.command()
def pause(name: Name, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """Fetch a source no more until it is resumed.

    Its postings stay as they are.

    \b
    Examples:
      feed source pause greenhouse:acme
    """

    async def work(store: SourceStore) -> None:
        await store.pause((await find_source(store, name)).name)

    with_store(database_url, data_dir, work)
    say(f"{name} is paused. Its postings stay as they are. To go on: feed source resume {name}")


@app.command()
def resume(name: Name, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """Fetch a paused source again, at once and then on schedule.

    \b
    Examples:
      feed source resume greenhouse:acme
    """

    async def work(store: SourceStore) -> None:
        await store.resume((await find_source(store, name)).name)

    with_store(database_url, data_dir, work)
    say(f"{name} is fetched again, from now on")


@app.command()
def remove(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Forget a source and close its postings.

    Asks first on a terminal; elsewhere it needs --yes. To keep the postings: feed source pause.

    \b
    Examples:
      feed source remove greenhouse:acme
      feed source remove greenhouse:acme --yes
    """

    source = with_store(database_url, data_dir, lambda store: find_source(store, name))
    # Asked between the two: Ctrl-C could not end a thread that waits for an answer.
    if not yes and not _agreed(f"{name} has {source.open:,} open postings."):
        say(f"{name} stays as it is")
        raise typer.Exit(1)
    closed = with_store(database_url, data_dir, lambda store: store.remove(name))
    say(f"{name} is removed, {closed:,} open postings were closed")


@app.command()
def accept(name: Name, database_url: DatabaseUrl = None, data_dir: DataDir = None) -> None:
    """Believe a suspect list, once.

    The next complete list of the source is believed, whatever it lacks, and what is not in it is closed.

    A list is suspect when it is much shorter than those before it, empty, or of another company; meanwhile nothing closes.
    Look at the board first: `feed source check` tells what its list holds now.

    \b
    Examples:
      feed source accept greenhouse:acme
    """

    async def work(store: SourceStore) -> tuple[str | None, int]:
        source = await find_source(store, name)
        missing = await store.missing(source.name)
        await store.accept(source.name)
        return source.suspect, missing

    why, missing = with_store(database_url, data_dir, work)
    say(f"{name} was suspect: {why}")
    say(
        f"its next complete list is believed. {missing:,} open postings were not in the newest one; "
        "those that are not in the next one either are closed"
    )


def _agreed(question: str) -> bool:
    """Return what a person at the terminal answers; raises ConfigurationError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{question} Removing it closes them: confirm that with --yes.")
    return typer.confirm(f"{question} Close them, and forget the source?", err=True)
