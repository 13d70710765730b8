"""`feed post`: reads postings from a file or a pipe and writes them to a feed."""

import asyncio
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from feed.cli.client_options import Key
from feed.cli.exit_codes import Exit
from feed.cli.messages import say
from feed.cli.post_run import PostRun
from feed.cli.record_reader import RecordReader
from feed.cli.target import open_target
from feed.errors import ConfigurationError, FeedError
from feed.model.mapping import RecordMap

_INTERRUPTED = 130
"""The exit code of a program that Ctrl-C has ended."""


def post(
    file: Annotated[str, typer.Argument(help="A file of JSON or NDJSON, or - for standard input.")],
    map_file: Annotated[
        Path | None, typer.Option("--map", metavar="FILE", help="A mapping (TOML) from foreign records.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="The feed to post to.  [default: http://127.0.0.1:8000]")
    ] = None,
    database_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Write straight to this database instead.")
    ] = None,
    sync: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="The input is all that SOURCE has now: close its open postings that are not in it.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Postings in a request.")] = 500,
    retries: Annotated[
        int, typer.Option(min=0, max=1000, help="How often to try again while the server cannot be had.")
    ] = 5,
    key: Key = None,
) -> None:
    """Post job postings from a file or a pipe.

    The input is a JSON object, an array of them, or NDJSON (an object a line). NDJSON is read as it comes, in
    bounded memory; a pipe that pauses has what it gave so far posted at once. Writing is idempotent on source
    + external_id, so that an interrupted run is simply run again; a record without external_id gets one made
    of its content. Bad records are named on stderr and left out.

    With --sync SOURCE the input is taken for the whole of that source: what is in it is written, and then every
    posting of the source that was open before and is not in it is closed. All of the input is checked first. If
    any record is bad, comes from another source, or if there is none at all, nothing is written and nothing
    closed. Nothing is closed either unless everything has been written. A record without source gets SOURCE. A
    posting that was closed and is in the input again is opened again, unless its record says closed_at.

    \b
    Examples:
      feed post jobs.ndjson
      scraper | feed post - --url https://jobs.example.org
      feed post listings.json --map simplify.toml
      feed post listings.json --map simplify.toml --sync simplify
      feed post jobs.json --database-url postgresql://localhost/jobs

    \b
    Exit codes:
      0    everything was written
      1    some records were rejected (the others were written; with --sync, none), or the server refused
      2    the command, the file or the mapping is wrong
      3    the server or the database cannot be reached (run again to go on)
      130  interrupted (run again to go on)
    """
    if url and database_url:
        raise typer.BadParameter("--url and --database-url name two targets: give one of them.")
    if sync is not None and not sync.strip():
        raise typer.BadParameter("--sync needs the name of a source.")
    mapping = RecordMap.load(map_file) if map_file else None
    run = PostRun(mapping, batch, retries, sync)
    try:
        with _open(file) as source:
            asyncio.run(run.post(RecordReader(source.fileno()), open_target(url, database_url, key)))
    except FeedError:
        run.report.conclude(accepted=run.tally.accepted)
        say(f"stopped: {run.tally}")
        raise
    except KeyboardInterrupt:
        run.report.conclude(accepted=run.tally.accepted)
        say(f"interrupted: {run.tally}; the same command goes on from there")
        raise typer.Exit(_INTERRUPTED) from None
    run.report.conclude(accepted=run.tally.accepted)
    print(run.tally)
    if run.tally.rejected:
        raise typer.Exit(Exit.FAILED)


def _open(file: str) -> BinaryIO:
    try:
        return open(0, "rb", 0, closefd=False) if file == "-" else Path(file).open("rb", 0)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error
