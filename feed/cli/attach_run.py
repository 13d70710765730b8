"""One run of `feed attach`: looks at the table, proposes a map, shows it, asks, attaches, and follows the backfill."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from feed.cli.attach_report import command_of, is_terminal, show_difference, show_map, show_sample
from feed.cli.database import existing_database
from feed.cli.exit_codes import Exit
from feed.cli.messages import say
from feed.database.attach import attach, detach, equip
from feed.database.attach_check import checked, first_rows, sample
from feed.database.attachment_plan import statements
from feed.database.attachments import AttachedTable, attached_tables
from feed.database.check import check
from feed.database.connect import owned
from feed.database.leading import leader
from feed.database.migrate import migrate
from feed.database.table_shape import describe, require
from feed.errors import ConfigurationError, FeedError
from feed.model.attach_guess import guess
from feed.model.attach_map import AttachMap, MapError, check_complete, key_of
from feed.model.attachment import FIELDS, REQUIRED, AttachmentSpec, OnError
from feed.model.table import TableShape
from feed.settings.settings import Settings

_LOOKED = 500
"""Rows that are read for a guess, and to show what a map makes of them."""
_SHOWN = 3
"""Postings that are shown."""
_POLL = 0.5
"""Seconds between two looks at the backfill."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for."""

    table: str
    map: AttachMap
    source: str | None
    on_error: OnError | None
    """None: as it is, or `skip`."""
    backfill: bool
    adopt: bool
    sql: bool
    yes: bool
    options: Mapping[str, str | None]
    """The options besides the map as they were given, for the command line that is shown; None: not given, "": a flag."""


class AttachRun:
    """One run of `feed attach`: `propose`, `ask` and `apply`, one after the other.

    Each is on its own, so that Ctrl-C is heard while the user is asked, and no session of the database waits meanwhile.
    """

    def __init__(self, settings: Settings, wanted: Wanted) -> None:
        self._settings = settings
        self._wanted = wanted
        self._spec: AttachmentSpec | None = None
        self._question: AttachMap | None = None
        self._interrupted = "interrupted: nothing was changed"
        self._command = ""

    async def propose(self) -> None:
        """Look at the table and show what would be done; with --sql, print that and no more. Changes nothing."""
        async with self._connected() as (_, connection):
            shape = await describe(connection, self._wanted.table)
            old = await _attached(connection, shape)
            if not self._wanted.sql:
                require(shape)
            spec, guessed = await self._proposed(connection, shape, old)
            check_complete(spec.fields, shape)
            found = await checked(connection, shape, spec)
            if self._wanted.sql:
                await self._print_sql(connection, shape, found.spec, old)
                return
            seen = await sample(connection, shape, found.spec, _LOOKED, _SHOWN)
            show_map(found.spec, seen)
            show_sample(shape, seen)
            for note in found.notes:
                say(note)
            if shape.leaves and not shape.partitioned:
                children = ", ".join(shape.leaves[:3])
                say(
                    f"{shape.name} has tables that inherit from it ({children}). Postgres does not keep their keys apart: "
                    f"if two of them have a row with the same {', '.join(found.spec.key)}, these are one posting"
                )
            self._spec = found.spec
            if old is not None and show_difference(old.spec, found.spec):
                self._question = self._wanted.map
            elif guessed:
                self._question = _map_of(found.spec)

    def ask(self) -> None:
        """Ask about a guess or a change; raises typer.Exit where the answer is no, or where nobody is there to answer."""
        if self._question is None or self._wanted.yes:
            return
        table = self._wanted.table if self._spec is None else self._spec.table
        command = command_of(table, self._question, {**self._wanted.options, "--yes": ""})
        if not is_terminal():
            say("nothing was changed. To attach the table with just this map, run:")
            print(command)
            raise typer.Exit(Exit.USAGE)
        print(f"\nThis map as a command:\n\n{command}\n")
        try:
            agreed = typer.confirm(f"Attach {table} with this map?")
        except typer.Abort:  # Ctrl-C or Ctrl-D
            raise KeyboardInterrupt from None
        if not agreed:
            say("nothing was changed")
            raise typer.Exit(Exit.FAILED)

    async def apply(self) -> None:
        """Attach the table as proposed, and follow how its rows become postings."""
        if self._spec is None:
            return
        spec, schema = self._spec, self._settings.database.schema_name
        self._interrupted = "interrupted: run the same command again to continue"
        async with self._connected() as (dsn, connection):
            shape = await describe(connection, spec.table)
            await migrate(self._settings, dsn)
            old = await _attached(connection, shape)
            if old is None:
                await attach(connection, schema, spec, shape, adopt=self._wanted.adopt)
                say(f"{shape.name} is attached: its postings have the source {spec.source}")
            elif replace(spec, table=old.spec.table) != old.spec:
                await self._replace(connection, shape, old, spec)
                say(f"{shape.name} has the new map")
            else:
                await equip(connection, schema, old.number)
                say(f"{shape.name} is attached just so: there was nothing to change")
            await self._follow(connection, shape)

    def tell_interrupted(self) -> None:
        """Say what is the case after Ctrl-C, and how to go on."""
        say(self._interrupted)
        if self._command:
            print(self._command)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[str, Any]]:
        """Yield the DSN of the database, and a connection to it."""
        async with existing_database(self._settings) as dsn:
            await check(self._settings.database, dsn)
            async with owned(self._settings.database, dsn, "attach") as connection:
                yield dsn, connection

    async def _replace(self, connection: Any, shape: TableShape, old: AttachedTable, spec: AttachmentSpec) -> None:
        """Give an attached table another map: its postings keep their ids, and the comparison updates those that differ."""
        schema = self._settings.database.schema_name
        options = {
            **self._wanted.options, "--source": spec.source, "--key": ",".join(spec.key), "--adopt": "", "--yes": "",
        }  # fmt: skip
        self._interrupted = "it is not attached now, and its postings are kept. To go on, run:"
        self._command = command_of(spec.table, _map_of(spec), options)
        try:
            await detach(connection, schema, old.number, keep=True)
            await attach(connection, schema, spec, shape, adopt=True)
        except FeedError:
            self.tell_interrupted()
            raise
        self._command = ""

    async def _proposed(
        self, connection: Any, shape: TableShape, old: AttachedTable | None
    ) -> tuple[AttachmentSpec, bool]:
        """Return the attachment that is asked for, not yet checked, and whether any of it was guessed."""
        given, wanted = self._wanted.map, self._wanted
        if old is not None and old.ending:
            raise ConfigurationError(
                f"{shape.name} is being detached. Run feed detach {shape.name} again, then attach it."
            )
        if old is not None:
            # A key is kept by its columns, and these may have been renamed since.
            renamed = any(shape.column(name) is None for name in old.spec.key)
            known = replace(old.spec, key=key_of(shape, given.key)) if renamed else old.spec
            return _altered(known, wanted), False
        key = key_of(shape, given.key)
        fields, where, closed = given.fields, given.where, given.closed
        guessed = not all(name in fields for name in REQUIRED)
        if guessed:
            rows = [] if shape.grants else await first_rows(connection, shape, _LOOKED)
            found = guess(shape, rows)
            fields = {name: both[name] for name in FIELDS if name in (both := found.fields | fields)}
            where, closed = where or found.where, closed or found.closed
            if not all(name in fields for name in REQUIRED) and found.fields:
                names = ", ".join(f"{name}={expression}" for name, expression in found.fields.items())
                say(f"guessed by the columns' names: {names}")
        spec = AttachmentSpec(
            shape.name, wanted.source or shape.name.replace('"', ""), key, fields, _unless("true", where),
            _unless("false", closed), on_error=wanted.on_error or "skip", backfill=wanted.backfill,
        )  # fmt: skip
        return spec, guessed

    async def _print_sql(
        self, connection: Any, shape: TableShape, spec: AttachmentSpec, old: AttachedTable | None
    ) -> None:
        """Print what an administrator runs instead of this command."""
        if old is not None:
            raise ConfigurationError(f"{shape.name} is attached already; `feed attached` shows how. Detach it first.")
        command = command_of(spec.table, _map_of(spec), self._wanted.options)
        print("\n".join(f"-- {line}" for line in command.splitlines()))
        for statement in await statements(connection, self._settings.database.schema_name, spec, shape):
            print(f"{statement.rstrip(';')};")

    async def _follow(self, connection: Any, shape: TableShape) -> None:
        """Show on a terminal how the rows that are there become postings, until all have, and say who does it."""
        self._interrupted = (
            "the table stays attached, and its rows go on to become postings: `feed attached` shows how far"
        )
        now = await _attached(connection, shape)
        if now is None or now.compared_at is not None:
            return
        if await leader(connection, self._settings.database.schema_name) is None:
            say("no feed serve runs: start it, and the rows that are there become postings")
            return
        if not sys.stderr.isatty():
            say("its rows become postings in the background: `feed attached` shows how far")
            return
        columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.completed:,} rows"), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("rows", total=shape.rows or None)
            while now is not None and now.compared_at is None and now.broken is None:
                progress.update(bar, completed=now.read or 0)
                await asyncio.sleep(_POLL)
                now = await _attached(connection, shape)
        if now is not None and now.broken is not None:
            raise ConfigurationError(f"{shape.name} cannot be compared: {now.broken}")
        if now is not None:
            say(f"all {now.rows:,} rows have been read: {now.open:,} postings are open, {now.bad:,} rows make none")


async def _attached(connection: Any, shape: TableShape) -> AttachedTable | None:
    """Return the attachment of a table, None where it has none (or feed has no schema yet)."""
    if not await connection.fetchval("SELECT to_regclass('attachment') IS NOT NULL"):
        return None
    return next((one for one in await attached_tables(connection) if one.name == shape.name), None)


def _altered(old: AttachmentSpec, wanted: Wanted) -> AttachmentSpec:
    """Return an attachment with what the command line changes of it; raises MapError for what cannot change."""
    given = wanted.map
    for option, now, then in (("--source", wanted.source, old.source), ("--key", given.key, old.key)):
        if now and now != then:
            told = then if isinstance(then, str) else ",".join(then)
            raise MapError(
                f"{option}: {old.table} is attached with {told}, which cannot be changed, because its postings would become "
                "others. Run feed detach first."
            )
    both = old.fields | given.fields
    return replace(
        old,
        fields={name: both[name] for name in FIELDS if name in both and both[name].upper() != "NULL"},
        where=_unless("true", given.where or old.where),
        closed=_unless("false", given.closed or old.closed),
        on_error=wanted.on_error or old.on_error,
    )


def _map_of(spec: AttachmentSpec) -> AttachMap:
    return AttachMap(spec.fields, spec.where, spec.closed)


def _unless(nothing: str, expression: str | None) -> str | None:
    """Return the expression, or None where it says what holds without one."""
    return None if expression is None or expression.lower() == nothing else expression
