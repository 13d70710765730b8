"""`feed tail`: follows a feed for ever and prints what happens."""

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Literal

import orjson
import typer

from feed.cli.client_options import DEFAULT_URL, Key
from feed.cli.event_lines import EventLines, Stdout
from feed.cli.messages import say
from feed.client import Continuity, FeedClient, FilterValue, Following, StreamEvent

Many = list[str] | None


def tail(
    url: Annotated[str, typer.Argument(help="The feed to follow.")] = DEFAULT_URL,
    company: Annotated[Many, typer.Option(metavar="TEXT", help="A company's whole name.")] = None,
    country: Annotated[Many, typer.Option(metavar="TEXT")] = None,
    location: Annotated[Many, typer.Option(metavar="TEXT", help='A place or a part of one: "berlin".')] = None,
    workplace: Annotated[Many, typer.Option(metavar="TEXT", help="onsite, hybrid or remote.")] = None,
    employment_type: Annotated[Many, typer.Option(metavar="TEXT", help='Such as "full-time".')] = None,
    seniority: Annotated[Many, typer.Option(metavar="TEXT", help='Such as "senior".')] = None,
    tag: Annotated[Many, typer.Option(metavar="TEXT", help="One of the posting's tags.")] = None,
    salary_min: Annotated[float | None, typer.Option(help="A year's salary, in --currency.")] = None,
    currency: Annotated[Many, typer.Option(metavar="TEXT", help="As in EUR.")] = None,
    q: Annotated[
        str | None,
        typer.Option("--q", metavar="TEXT", help="Words, or their beginnings, in title, company, tags or location."),
    ] = None,
    near: Annotated[str | None, typer.Option(metavar="LAT,LON", help="A point on the map, in degrees.")] = None,
    radius_km: Annotated[float | None, typer.Option(help="The distance from --near, in kilometres.")] = None,
    event: Annotated[Many, typer.Option(metavar="TEXT", help="posted, updated or closed.")] = None,
    backfill: Annotated[
        bool,
        typer.Option(
            "--backfill/--no-backfill",
            help="Whether to show postings that were there before: of a table that is attached, of a source's first run.",
        ),
    ] = True,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Start at a time (RFC 3339), or 15m, 2h, 3d ago.")
    ] = None,
    start: Annotated[
        Literal["earliest", "now"] | None,
        typer.Option("--from", help="Start with all that is kept, or with what comes now (the default)."),
    ] = None,
    last_event_id: Annotated[str | None, typer.Option(metavar="ID", help="Start after this event.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many events.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help='Print a JSON line an event: {"id", "event", "data"}.')
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Check that no position is missing, doubled or out of order. Without a canary: it takes some.",
        ),
    ] = False,
    http2: Annotated[bool, typer.Option("--http2/--http1.1", help="The protocol to speak.")] = False,
    key: Key = None,
) -> None:
    """Follow job postings as they are committed.

    For ever: a stream that ends is taken up again where it was, without losing or repeating a posting.
    Filters may be repeated: any value of a name will do, and all names must match. Postings go to stdout;
    what happens to the connection goes to stderr. A "reset" means that the place to resume from was of no use
    and that postings may have been missed. For a server with a certificate of its own, name it in
    SSL_CERT_FILE.

    \b
    Examples:
      feed tail
      feed tail https://jobs.example.org --location berlin --location paris --workplace remote
      feed tail --no-backfill --event posted
      feed tail --since 2h --json | jq -r .data.title
      feed tail --from earliest --verify --limit 1000 > /dev/null

    \b
    Exit codes:
      0  ended by Ctrl-C, by --limit, or because the reader of stdout is gone
      1  --verify found a fault, or the server refused (an unknown filter value, no access)
      2  the command is wrong
      3  what answers at URL is no feed
    """
    choices: dict[str, FilterValue | Sequence[FilterValue] | None] = {
        "company": company,
        "country": country,
        "location": location,
        "workplace": workplace,
        "employment_type": employment_type,
        "seniority": seniority,
        "tag": tag,
        "salary_min": salary_min,
        "currency": currency,
        "q": q,
        "near": near,
        "radius_km": radius_km,
        "event": event,
        "backfill": None if backfill else False,
    }
    filters = {name: value for name, value in choices.items() if value is not None and value != []}
    if verify and filters:
        option = "no-backfill" if "backfill" in filters else next(iter(filters)).replace("_", "-")
        raise typer.BadParameter(f"--verify needs every event, and a filter leaves some out: leave out --{option}")
    continuity = Continuity() if verify else None
    show = _show_json if as_json else EventLines(Stdout(highlight=False)).show
    client = FeedClient(url, key=key, http2=http2)
    events = client.follow(filters, since=since, start=start, last_event_id=last_event_id, control=True)
    try:
        asyncio.run(_print(client, events, show, continuity, limit))
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Nobody reads on; keep the interpreter from trying once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if continuity:
        say(f"verified {continuity}")


async def _print(
    client: FeedClient,
    events: Following,
    show: Callable[[StreamEvent], None],
    continuity: Continuity | None,
    limit: int | None,
) -> None:
    """Print events until `limit` of them were postings; raises BrokenPipeError and what the client raises."""
    shown = 0
    async with client, aclosing(events):
        async for event in events:
            if continuity:
                continuity.check(event)
            if event.is_posting or (event.kind == "reset" and show is _show_json):
                show(event)
            _say_status(event)
            shown += event.is_posting
            if shown == limit:
                return


def _show_json(event: StreamEvent) -> None:
    line = {"id": event.id, "event": event.kind, "data": event.data}
    sys.stdout.buffer.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def _say_status(event: StreamEvent) -> None:
    """Say on stderr what has become of the connection."""
    data = event.data
    match event.kind:
        case "connected":
            say(f"connected to {data['url']} ({data['http_version']})")
        case "synced":
            say(f"live; {data.get('replayed', 0):,} replayed")
        case "reset":
            say(
                f"reset ({data.get('reason')}): some postings may have been missed; "
                f"{data.get('snapshot')} lists what there is; going on from {event.id}"
            )
        case "goodbye":
            say(f"the server says goodbye ({data.get('reason')})")
        case "reconnecting":
            say(f"{data['reason']}; reconnecting in {data['delay_ms'] / 1000:.1f} s")
