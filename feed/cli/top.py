"""`feed top`: who follows a feed, and what it fetches, live on the terminal."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal

import orjson
import typer
from rich.console import Console
from rich.live import Live

from feed.cli.client_options import DEFAULT_URL, Key
from feed.cli.plain_table import print_table
from feed.cli.source_table import SourceTable
from feed.cli.subscriber_table import SubscriberTable
from feed.client import FeedClient, Unavailable

_TIMEOUT = 10.0  # seconds

Table = SubscriberTable | SourceTable
Look = Callable[[], Awaitable[Mapping[str, Any]]]
"""Asks the server for what the table shows."""


def top(
    url: Annotated[str, typer.Argument(help="The feed to look at.")] = DEFAULT_URL,
    interval: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between two looks.")] = 1.0,
    sort: Annotated[
        Literal["lag", "age", "bytes", "events"], typer.Option(help="What comes first: the most of it.")
    ] = "lag",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Streams to list.")] = 100,
    sources: Annotated[
        bool, typer.Option("--sources", help="Show the public boards that the feed fetches, instead of its streams.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Print one table, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the server's answers as they are, a JSON line each.")
    ] = False,
    key: Key = None,
) -> None:
    """Show who follows a feed, or the boards that it fetches.

    The process that answers gives its figures of now; those of the others are up to five seconds old, and of their
    streams at most a hundred of each order are listed.

    Live on a terminal until Ctrl-C; a plain table, once, elsewhere. Needs a key of the scope admin, unless the
    feed listens on this machine only and asks for none. LAG counts positions behind the head; MODE is pushed
    (live frames go straight to the socket) or pulled (served from the log at its own pace).

    \b
    Examples:
      feed top
      FEED_KEY=... feed top https://jobs.example.org --sort bytes
      feed top --once --limit 1000 | grep pulled
      feed top --sources --interval 10
      feed top --json --interval 10 >> subscribers.ndjson

    \b
    Exit codes:
      0  ended by Ctrl-C, or because the reader of stdout is gone
      1  the server refused (no key, or not one of the scope admin)
      2  the command is wrong
      3  the server cannot be reached, or what answers at URL is no feed
    """
    client = FeedClient(url, key=key, timeout=_TIMEOUT)
    console = Console(highlight=False)
    table: Table
    if sources:
        table, look = SourceTable(f"feed top {client.url}"), client.sources
    else:
        table = SubscriberTable(str(client.url), sort)

        async def look() -> dict[str, Any]:
            return await client.subscribers(sort=sort, limit=limit)

    try:
        if as_json:
            asyncio.run(_print_json(client, look, interval, once))
        elif once or not console.is_terminal:
            asyncio.run(_print_once(client, look, table, console))
        else:
            asyncio.run(_watch(client, look, table, interval, console))
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Nobody reads on; keep the interpreter from trying once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _print_json(client: FeedClient, look: Look, interval: float, once: bool) -> None:
    async with client:
        while True:
            answer = await look()
            sys.stdout.buffer.write(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))
            sys.stdout.buffer.flush()
            if once:
                return
            await asyncio.sleep(interval)


async def _print_once(client: FeedClient, look: Look, table: Table, console: Console) -> None:
    async with client:
        table.update(await look())
    print_table(table, console)


async def _watch(client: FeedClient, look: Look, table: Table, interval: float, console: Console) -> None:
    """Show it until interrupted. What refuses ends it; a server that is away is waited for."""
    async with client:
        table.update(await look())  # before the screen changes: an error stays readable
        with Live(get_renderable=lambda: table, console=console, screen=True, refresh_per_second=4):
            while True:
                await asyncio.sleep(interval)
                try:
                    table.update(await look())
                except Unavailable as error:
                    table.fault = str(error)
