"""`feed post`: reads postings from a file or a pipe and writes them to a feed."""

import asyncio
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from feed.cli.bad_records import BadRecords
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
        Path | None, typer.Option("--map", metavar="FILE", help="TOML file that maps other records to postings.")
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
            help="Treat the input as the complete list of SOURCE: close its open postings that are not in it.",
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Write the good records and report the bad ones in a file.")
    ] = False,
    bad: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file for --skip-bad, in NDJSON.  [default: NAME.bad.ndjson beside the input]",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=10_000, help="Postings per request.")] = 500,
    retries: Annotated[
        int, typer.Option(min=0, max=1000, help="How often to retry when the server cannot be reached.")
    ] = 5,
    key: Key = None,
) -> None:
    """Post job postings from a file or a pipe.

    The input is a JSON object, an array of objects, or NDJSON (one object per line). NDJSON is read as it
    arrives, in bounded memory; when a pipe pauses, the records read so far are posted at once. A posting with
    the same source and external_id is replaced, so an interrupted run can simply be repeated; a record without
    external_id gets one derived from its content.

    A file is checked as a whole first: if one record is bad, nothing is written. A pipe cannot be read twice: it
    is written as it comes, up to the first request with a bad record. Bad records are reported on stderr.
    With --skip-bad, the good records are written. The bad ones go to a file, one a line:
    {"line": 3, "faults": [{"field": "url", "message": "is required"}], "record": {...}}

    With --sync SOURCE, the input is the complete list of that source: its postings are written, and then every
    posting of the source that was open before and is not in the input is closed. The whole input is checked
    first. If a record is bad or belongs to another source, or if there are no records, nothing is written or
    closed. Nothing is closed unless every record was written. A record without a source gets SOURCE. A closed
    posting that is in the input is opened again, unless its record has a closed_at. With --skip-bad as well,
    the posting of a bad record is in the input too and stays as it is; if the external_id of a bad record
    cannot be read, nothing is closed.

    \b
    Examples:
      feed post jobs.ndjson
      scraper | feed post - --url https://jobs.example.org
      feed post listings.json --map simplify.toml
      feed post listings.json --map simplify.toml --sync simplify
      feed post jobs.json --database-url postgresql://localhost/jobs
      feed post jobs.ndjson --skip-bad && echo "none was bad"
      jq -c .record jobs.bad.ndjson     # the records that were left out

    \b
    Exit codes:
      0    everything was written
      1    some records were rejected (with --skip-bad, the others were written), or the server refused
      2    the command, the file or the mapping is wrong
      3    the server or the database cannot be reached (run the command again to continue)
      130  interrupted (run the command again to continue)
    """
    if url and database_url:
        raise typer.BadParameter("--url and --database-url name two targets: give one of them.")
    if sync is not None and not sync.strip():
        raise typer.BadParameter("--sync needs the name of a source.")
    if bad is not None and not skip_bad:
        raise typer.BadParameter("--bad names the file of --skip-bad: give both, or neither.")
    mapping = RecordMap.load(map_file) if map_file else None
    bad_records = BadRecords(_bad_file(file, bad)) if skip_bad else None
    run = PostRun(mapping, batch, retries, sync, bad_records)
    try:
        with _open(file) as source, bad_records or nullcontext():
            asyncio.run(run.post(RecordReader(source.fileno()), open_target(url, database_url, key)))
    except FeedError:
        run.report.conclude(accepted=run.tally.accepted)
        say(f"stopped: {run.tally}")
        raise
    except KeyboardInterrupt:
        run.report.conclude(accepted=run.tally.accepted)
        say(f"interrupted: {run.tally}; run the same command again to continue")
        raise typer.Exit(_INTERRUPTED) from None
    run.report.conclude(accepted=run.tally.accepted)
    print(run.tally)
    if run.tally.rejected:
        if bad_records:
            say(f"{run.tally.rejected:,} bad records are in {bad_records.path}")
        raise typer.Exit(Exit.FAILED)


def _bad_file(file: str, named: Path | None) -> Path:
    """Return where the bad records go; raises ConfigurationError for the input itself."""
    given = Path(file)
    path = named or (Path("stdin.bad.ndjson") if file == "-" else given.with_name(f"{given.stem}.bad.ndjson"))
    if file != "-" and given.exists() and path.exists() and given.samefile(path):
        raise ConfigurationError(
            f"the bad records cannot go to {path}, which is the input: name another file with --bad"
        )
    return path


def _open(file: str) -> BinaryIO:
    try:
        return open(0, "rb", 0, closefd=False) if file == "-" else Path(file).open("rb", 0)
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error
