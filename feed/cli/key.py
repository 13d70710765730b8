"""`feed key`: makes, lists and revokes API keys."""

import asyncio
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from feed.access.grant import Scope
from feed.access.key import new_key
from feed.access.keys import KeyRecord
from feed.cli.database import DatabaseUrl, DataDir, existing_database, settings_of
from feed.cli.messages import clean, say
from feed.database.access import AccessStore
from feed.database.check import check
from feed.database.connect import pool
from feed.database.migrate import migrate
from feed.model.query import parse_filter

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Make, list and revoke API keys.",
)  # fmt: skip

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.command()
def create(
    scope: Annotated[
        Scope, typer.Option(help="What it is good for. Write and admin read as well; admin is good for everything.")
    ],
    filter_: Annotated[
        str, typer.Option("--filter", metavar="QUERY", help="The part of the feed it shows: 'company=acme&tag=python'.")
    ] = "",
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="Such as 12h or 90d. [default: never]")] = None,
    max_streams: Annotated[
        int | None, typer.Option(min=1, help="Streams that may be open at a time, a process. [default: no bound]")
    ] = None,
    note: Annotated[str, typer.Option(help="Whose it is, for the list.")] = "",
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it. It is shown this once: only its digest is kept.

    Exit codes: 0 done, 1 refused, 2 usage, 3 the database does not answer.

    \b
    Examples:
      feed key create --scope read
      feed key create --scope read --filter 'company=acme' --expires 90d --max-streams 5 --note 'Acme careers page'
      KEY=$(feed key create --scope write); curl -H "Authorization: Bearer $KEY" ...
    """
    parse_filter(filter_)
    key = new_key()

    async def make(store: AccessStore) -> None:
        await store.add_key(key, scope, wanted=filter_, seconds=_seconds(expires), max_streams=max_streams, note=note)

    _with_store(database_url, data_dir, make, prepare=True)
    print(key.text)
    if sys.stdout.isatty():
        say(f"key {key.id}, scope {scope}. It is not shown again. To end it: feed key revoke {key.id}")


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Show all keys, never their secrets.

    \b
    Examples:
      feed key list
      feed key list --json | jq 'select(.state == "active")'
    """
    records = _with_store(database_url, data_dir, lambda store: store.keys())
    if as_json:
        for one in records:
            print(json.dumps(_shown(one)))
        return
    if not records:
        say("there are no keys yet: feed key create --scope read")
        return
    table = Table(box=None, pad_edge=False)
    columns = ("id", "scope", "state", "filter", "streams", "created", "expires", "note")
    for name in columns:
        table.add_column(name, overflow="fold")
    for one in records:
        shown = _shown(one)
        table.add_row(*(Text("" if shown[name] is None else clean(str(shown[name]))) for name in columns))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@app.command()
def revoke(
    identity: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The key's id, as `feed key list` shows it, or the whole key.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="Instead of a key: all tokens (JWT) of this `sub` that were issued until now.")
    ] = None,
    token: Annotated[str | None, typer.Option(help="Instead of a key: the token (JWT) with this `jti`.")] = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """End a key, or tokens, everywhere: requests are refused, and streams that are open end within seconds.

    \b
    Examples:
      feed key revoke x5J2kQ9aLm
      feed key revoke --subject alice@example.com
    """
    if sum(one is not None for one in (identity, subject, token)) != 1:
        raise typer.BadParameter("Give one of them: a key's id, --subject or --token.")
    if identity is not None:
        name = identity.removeprefix("feedkey_").partition("_")[0]
        _with_store(database_url, data_dir, lambda store: store.revoke_key(name))
        say(f"key {name} is revoked")
    elif subject is not None:
        _with_store(database_url, data_dir, lambda store: store.revoke("subject", subject))
        say(f"the tokens of {subject} are revoked")
    elif token is not None:
        _with_store(database_url, data_dir, lambda store: store.revoke("token", token))
        say(f"the token {token} is revoked")


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if found is None or int(found[1]) == 0:
        raise typer.BadParameter(
            f"{text!r} is not a span of time. Write it as 30m, 12h or 90d.", param_hint="--expires"
        )
    return float(int(found[1]) * _UNITS[found[2]])


def _shown(one: KeyRecord) -> dict[str, str | int | None]:
    expired = one.expires_at is not None and one.expires_at <= time.time()
    state = "revoked" if one.revoked_at is not None else "expired" if expired else "active"
    return {
        "id": one.id, "scope": one.scope.value, "state": state, "filter": one.filter, "streams": one.max_streams,
        "created": _time(one.created_at), "expires": _time(one.expires_at), "note": one.note,
    }  # fmt: skip


def _time(unix: float | None) -> str | None:
    return None if unix is None else datetime.fromtimestamp(unix, UTC).isoformat(timespec="seconds")


def _with_store(
    database_url: str | None,
    data_dir: Path | None,
    work: Callable[[AccessStore], Awaitable[T]],
    *,
    prepare: bool = False,
) -> T:
    """Do `work` on the keys of an existing database; `prepare`: where the feed's schema is not there yet, create it."""
    settings = settings_of(database_url, data_dir)

    async def run() -> T:
        async with existing_database(settings) as dsn:
            await check(settings.database, dsn)
            if prepare:
                await migrate(settings, dsn)
            async with pool(settings.database, dsn) as connections:
                return await work(AccessStore(connections))

    return asyncio.run(run())
