"""`feed bench`: measures a running feed. Each measurement is a command of this sub-application."""

import asyncio
from dataclasses import asdict
from importlib import import_module
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from feed.bench import fanout as fan
from feed.bench import latency as late
from feed.bench import storm as storms
from feed.bench.spec import Http
from feed.cli.client_options import DEFAULT_URL
from feed.cli.exit_codes import Exit
from feed.cli.messages import say
from feed.errors import ConfigurationError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Url = Annotated[str, typer.Argument(help="The feed to measure.")]
Subscribers = Annotated[int, typer.Option(min=1, max=20_000, help="Streams open at the same time.")]
Events = Annotated[int, typer.Option(min=1, max=100_000, help="Postings to write.")]
Rate = Annotated[float, typer.Option(min=0.1, max=10_000, help="Postings a second, at uneven moments.")]
Http2 = Annotated[bool, typer.Option("--http2/--http1.1", help="The protocol to speak.")]
Streams = Annotated[int, typer.Option(min=1, max=100, help="Streams on each connection; more than one needs HTTP/2.")]
DatabaseUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="Write by SQL to this database, which the feed serves.")
]
Patience = Annotated[float, typer.Option(min=0.1, help="Seconds to wait for what has not arrived.")]
Json = Annotated[bool, typer.Option("--json", help="Print the figures as one line of JSON.")]


@app.callback()
def bench() -> None:
    """Measure a running feed."""
    try:
        import_module("hpack")  # the load generator's own, in processes that it starts
    except ImportError:
        raise ConfigurationError(
            "`feed bench` needs the package hpack, which is not installed. Install it with: pip install 'jobfeed[bench]'"
        ) from None


@app.command()
def fanout(
    url: Url = DEFAULT_URL,
    subscribers: Subscribers = 100,
    events: Events = 200,
    rate: Rate = 20,
    http2: Http2 = True,
    streams: Streams = 1,
    database_url: DatabaseUrl = None,
    pid: Annotated[
        int | None, typer.Option(min=1, help="The feed's process on this machine: prints deliveries per CPU second.")
    ] = None,
    patience: Patience = 10,
    as_json: Json = False,
) -> None:
    """Measure how many deliveries a feed makes: every posting to every subscriber, counted by each.

    Postings are written by SQL with --database-url, by POST otherwise; first up to 20 that do not count. They
    have the source "bench" and are closed at the end. With --pid the feed's own use of the processor is read
    from /proc, its workers' included.

    \b
    Examples:
      feed bench fanout
      feed bench fanout https://jobs.example.org --subscribers 1000 --streams 50 --rate 5 --events 50
      feed bench fanout --database-url postgresql://localhost/jobs --pid "$(pgrep -of 'feed serve')" --json

    \b
    Exit codes:
      0  every posting reached every subscriber, once
      1  some did not, or did twice
      2  the command is wrong
      3  the feed or the database cannot be reached
    """
    load = fan.Load(events, rate, patience=patience)
    found = asyncio.run(fan.measure(url, subscribers, _http(http2, streams), streams, database_url, load, pid, say))
    lines = [
        f"{found.deliveries:,} deliveries in {found.seconds:.2f} s: {found.deliveries_per_second:,.0f} a second, "
        f"{found.joined:.1f} events a write of {found.event_bytes:,.0f} bytes each",
        _to_whom(found, found.subscribers, found.events, found.rate),
    ]
    if found.deliveries_per_cpu_second is not None:
        lines.insert(1, f"{found.deliveries_per_cpu_second:,} per CPU second; {found.busy or 0:.0%} of a core was used")
    _print(found, as_json, lines)
    _judge(found.missing, found.twice, found.ended)


@app.command()
def latency(
    url: Url = DEFAULT_URL,
    subscribers: Subscribers = 100,
    events: Events = 200,
    rate: Rate = 20,
    http2: Http2 = True,
    streams: Streams = 1,
    database_url: DatabaseUrl = None,
    patience: Patience = 10,
    as_json: Json = False,
) -> None:
    """Measure how long a posting takes to reach every subscriber.

    With --database-url each posting is an INSERT of its own, and the clock runs from the moment at which the
    writer has the database's answer to its COMMIT until the bytes have been read off each subscriber's
    socket. Without it postings are sent to the feed by POST, and the clock runs from just before the request:
    the write and its commit are then part of the figure. The subscribers live in processes of their own; all
    clocks are this machine's. The postings have the source "bench" and are closed at the end.

    \b
    Examples:
      feed bench latency
      feed bench latency --database-url postgresql://localhost/jobs
      feed bench latency https://jobs.example.org --subscribers 1000 --events 50 --rate 2 --json

    \b
    Exit codes:
      0  every posting reached every subscriber, once
      1  some did not, or did twice
      2  the command is wrong
      3  the feed or the database cannot be reached
    """
    found = asyncio.run(
        late.measure(url, subscribers, events, rate, _http(http2, streams), streams, database_url, patience, say)
    )
    since = "the COMMIT was answered" if found.clock == "commit" else "the POST was sent"
    rows = {"every delivery": found.all, "first subscriber": found.first, "last subscriber": found.last}
    lines = [
        _spreads(f"Milliseconds since {since}", rows),
        _to_whom(found, found.subscribers, found.events, found.rate) + f": {found.deliveries:,} deliveries, "
        f"{found.missing:,} missing, {found.twice:,} twice",
    ]
    _print(found, as_json, lines)
    _judge(found.missing, found.twice, found.ended)


@app.command()
def storm(
    url: Url = DEFAULT_URL,
    subscribers: Subscribers = 500,
    back: Annotated[int, typer.Option(min=0, max=100_000, help="Events that each is behind, about.")] = 1_000,
    bystanders: Annotated[
        int, typer.Option(min=0, max=1_000, help="Subscribers that stay, and are written to meanwhile.")
    ] = 0,
    http2: Http2 = True,
    streams: Streams = 1,
    database_url: DatabaseUrl = None,
    patience: Annotated[float, typer.Option(min=1, help="Seconds for all to be live again.")] = 60,
    as_json: Json = False,
) -> None:
    """Measure how a feed takes subscribers that all come back at once, with cursors some way behind.

    Nothing is written unless there are bystanders; what is replayed is what the feed's log holds. Every
    subscriber checks that it got each position between its cursor and the head it met.

    \b
    Examples:
      feed bench storm
      feed bench storm https://jobs.example.org --subscribers 2000 --back 500 --streams 50
      feed bench storm --bystanders 20 --database-url postgresql://localhost/jobs --json

    \b
    Exit codes:
      0  all were live again, and nothing was missing or came twice
      1  something was missing or came twice, or a stream ended
      2  the command is wrong
      3  the feed or the database cannot be reached, or not all were live in time
    """
    found = asyncio.run(
        storms.measure(url, subscribers, back, _http(http2, streams), streams, bystanders, database_url, patience, say)
    )
    rows = {"live again": found.synced} | ({"an event to a bystander": found.live} if found.live else {})
    lines = [
        _spreads("Milliseconds", rows),
        f"{found.subscribers:,} subscribers over {found.http} were live after {found.seconds:.2f} s: "
        f"{found.deliveries:,} deliveries, {found.deliveries_per_second:,.0f} a second, {found.missing:,} missing or twice",
    ]
    _print(found, as_json, lines)
    _judge(found.missing, 0, found.ended)


def _http(http2: bool, streams: int) -> Http:
    if streams > 1 and not http2:
        raise ConfigurationError("HTTP/1.1 has one stream on each connection: leave out --streams, or --http1.1")
    return "h2" if http2 else "http/1.1"


def _to_whom(found: Any, subscribers: int, events: int, rate: float) -> str:
    shared = f", {found.streams} a connection" if found.streams > 1 else ""
    return f"{subscribers:,} subscribers over {found.http}{shared}, {events:,} events at {rate:g}/s"


def _spreads(title: str, rows: dict[str, late.Spread]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("", "p50", "p90", "p99", "max"):
        table.add_column(name, justify="right" if name else "left")
    for name, one in rows.items():
        table.add_row(name, *("-" if ms is None else f"{ms:.2f}" for ms in (one.p50, one.p90, one.p99, one.max)))
    return table


def _print(found: Any, as_json: bool, lines: list[Any]) -> None:
    if as_json:
        print(orjson.dumps(asdict(found)).decode())
        return
    console = Console(highlight=False)
    for line in lines:
        console.print(line, soft_wrap=isinstance(line, str))


def _judge(missing: int, twice: int, ended: int) -> None:
    if missing or twice or ended:
        say(f"{missing:,} deliveries are missing, {twice:,} came twice, {ended:,} streams ended")
        raise typer.Exit(Exit.FAILED)
