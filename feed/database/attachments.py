"""Attached tables: attach one, list them, bring their triggers up to date, detach one."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import asyncpg

from feed.database.attachment_ddl import AttachmentDdl, ReadColumn, Relation, literal, quoted
from feed.database.connect import translated
from feed.database.locking import unobtrusively
from feed.database.table_shape import require
from feed.errors import ConfigurationError, NotFound
from feed.model.attachment import AttachmentSpec, typed
from feed.model.table import TableShape

_CLOSED_AT_ONCE = 1000
"""Postings that `detach` closes in one transaction."""

_RELATIONS = """
WITH RECURSIVE tree(oid) AS (
  SELECT $1::bigint::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree t ON i.inhparent = t.oid)
SELECT c.oid::bigint AS oid, format('%I.%I', n.nspname, c.relname) AS name, c.relkind::text AS kind,
       pg_has_role(c.relowner, 'USAGE') AS owned
  FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') ORDER BY c.oid <> $1::bigint::oid, n.nspname, c.relname
"""
_ATTACHED = """
SELECT a.id, a.relation::oid::bigint AS oid,
       CASE WHEN c.oid IS NOT NULL THEN format('%I.%I', n.nspname, c.relname) END AS name, a.source, a.spec, a.columns,
       a.attached_at, a.pass, a.rows, a.compared_at, a.broken, a.ending, a.relations
  FROM attachment a LEFT JOIN pg_class c ON c.oid = a.relation LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
"""
_COUNTS = """
SELECT (SELECT count(*) FROM job j WHERE j.source = $2 AND j.closed_at IS NULL) AS open,
       (SELECT count(*) FROM attachment_bad b WHERE b.attachment = $1) AS bad,
       (SELECT count(*) FROM attachment_doubt d WHERE d.attachment = $1) AS doubts,
       (SELECT d.why FROM attachment_doubt d WHERE d.attachment = $1 ORDER BY d.id DESC LIMIT 1) AS doubt
"""
_READ_COLUMNS = """
SELECT DISTINCT d.refobjsubid::integer AS number, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type
  FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
  JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
 WHERE r.ev_class = $1::text::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $2::bigint::oid
   AND d.refobjsubid > 0
 ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class AttachedTable:
    """An attached table as it stands now."""

    number: int
    name: str | None
    """Its name now, with its schema; None where it was dropped."""
    spec: AttachmentSpec
    attached_at: datetime
    open: int
    """Postings of it that are open."""
    rows: int
    """Rows that the table had when it was last compared."""
    read: int | None
    """Rows that the comparison that goes on has read; None where none goes on."""
    compared_at: datetime | None
    """When it was last compared with its postings as a whole; None where the first comparison has not ended."""
    bad: int
    """Rows that make no posting; up to a thousand are counted."""
    doubts: int
    """Reasons to compare it that came up since."""
    doubt: str | None
    """The latest of them."""
    broken: str | None
    """Why it cannot be compared, and what helps; None where it can."""
    ending: bool
    """Whether `detach` was begun and has not ended."""


async def relations_of(connection: Any, oid: int) -> list[Relation]:
    """Return the table with this oid, its partitions of all levels and the children that inherit from it."""
    return [
        Relation(row["oid"], row["name"], row["kind"], row["owned"]) for row in await connection.fetch(_RELATIONS, oid)
    ]


class Attached:
    """What is known of one attachment, with names as they are now."""

    def __init__(self, row: Any, schema: str, relations: Sequence[Relation], columns: tuple[ReadColumn, ...]) -> None:
        self.row = row
        self.number = int(row["id"])
        self.relations = relations
        """The table itself first."""
        stored = json.loads(row["columns"])
        renamed = {stored[str(column.number)][0]: column.name for column in columns}
        given = spec_of(row["spec"])
        key = tuple(renamed.get(name, name) for name in given.key)
        self.spec = replace(given, table=row["name"], key=key)
        self.ddl = AttachmentDdl(row["id"], given.table, schema, self.spec, columns, relations[0])
        self.types = {column.name: column.type for column in columns if column.name in key}
        self.missing = sorted(
            stored[number][0] for number in stored.keys() - {str(column.number) for column in columns}
        )
        """Columns that the map reads and the table no longer has."""


async def load(connection: Any, schema: str, number: int) -> Attached | None:
    """Return an attachment, or None where there is none or its table was dropped."""
    row = await connection.fetchrow(f"{_ATTACHED} WHERE a.id = $1", number)
    if row is None or row["name"] is None:
        return None
    found = await connection.fetch(
        "SELECT a.attnum::integer AS number, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type "
        "FROM pg_attribute a WHERE a.attrelid = $1::bigint::oid AND a.attnum = ANY ($2::integer[]) AND NOT a.attisdropped "
        "ORDER BY a.attnum",
        row["oid"], [int(one) for one in json.loads(row["columns"])],
    )  # fmt: skip
    columns = tuple(ReadColumn(one["number"], one["name"], one["type"]) for one in found)
    return Attached(row, schema, await relations_of(connection, row["oid"]), columns)


async def plan(connection: Any, schema: str, spec: AttachmentSpec, shape: TableShape) -> list[list[str]]:
    """Return the statements that attach a table: a list for each transaction, the first of which also records it.

    Raises asyncpg.PostgresError where the database refuses an expression of the map.
    """
    number = await connection.fetchval("SELECT nextval(pg_get_serial_sequence('attachment', 'id'))")
    columns = await read_columns(connection, schema, spec, shape)
    relations = await relations_of(connection, shape.oid)
    ddl = AttachmentDdl(number, spec.table, schema, spec, columns, relations[0])
    stored = {str(column.number): [column.name, column.type] for column in columns}
    record = (
        "INSERT INTO attachment (id, relation, source, spec, columns, backfill, relations, compared_at) "
        f"OVERRIDING SYSTEM VALUE VALUES ({number}, {literal(shape.name)}, {literal(spec.source)}, "
        f"{literal(json.dumps(asdict(spec)))}, {literal(json.dumps(stored))}, {spec.backfill}, "
        f"'{{{','.join(str(one.oid) for one in relations)}}}', {'NULL' if spec.backfill else 'clock_timestamp()'})"
    )
    first = [
        f"SET LOCAL search_path = {quoted(schema)}, pg_temp",
        "SELECT FROM state FOR UPDATE",  # so that no advance() is in the middle of its work without knowing of the table
        record,
        *_with_path(schema, shape, ddl.functions()),
        "SELECT guard_mirrored()",
    ]
    return [first, *[[*ddl.capture_function(one), *ddl.triggers(one)] for one in relations]]


def _with_path(schema: str, shape: TableShape, statements: list[str]) -> list[str]:
    """Return statements between two that set search_path, so that expressions find the functions of the table's schema."""
    return [
        f"SET LOCAL search_path = {_schema_of(shape.name)}, public, {quoted(schema)}, pg_temp",
        *statements,
        f"SET LOCAL search_path = {quoted(schema)}, pg_temp",
    ]


def _schema_of(name: str) -> str:
    """Return the schema of a name in which either part may be quoted."""
    if not name.startswith('"'):
        return name[: name.index(".")]
    end = name.replace('""', "  ").index('"', 1)
    return name[: end + 1]


async def read_columns(connection: Any, schema: str, spec: AttachmentSpec, shape: TableShape) -> tuple[ReadColumn, ...]:
    """Return the columns that the map and the key read, found by a view that is rolled back.

    Raises asyncpg.PostgresError where the database refuses an expression.
    """
    view = f"{quoted(schema)}.attachment_probe"
    expressions = [typed(field, expression) for field, expression in spec.fields.items()]
    expressions += [f"(\n{one}\n)" for one in (spec.where, spec.closed) if one is not None]
    expressions += [quoted(name) for name in spec.key]
    listed = ", ".join(f"{one} AS c{number}" for number, one in enumerate(expressions))
    transaction = connection.transaction()
    await transaction.start()
    try:
        for statement in _with_path(schema, shape, [f"CREATE VIEW {view} AS SELECT {listed} FROM {shape.name}"]):
            await connection.execute(statement)
        rows = await connection.fetch(_READ_COLUMNS, view, shape.oid)
    finally:
        await transaction.rollback()
    return tuple(ReadColumn(row["number"], row["name"], row["type"]) for row in rows)


async def statements(connection: Any, schema: str, spec: AttachmentSpec, shape: TableShape) -> list[str]:
    """Return what attaches a table, for an administrator who runs it: each transaction between BEGIN and COMMIT."""
    told: list[str] = [f"{grant.rstrip(';')}" for grant in shape.grants]
    for transaction in await plan(connection, schema, spec, shape):
        told += ["BEGIN", f"SET LOCAL search_path = {quoted(schema)}, pg_temp", *transaction]
        for statement in transaction:
            if statement.startswith(("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")):
                name = statement.partition("FUNCTION ")[2]
                told.append(f"ALTER FUNCTION {_signature(name)} OWNER TO {shape.role}")
        told.append("COMMIT")
    return told


def _signature(declaration: str) -> str:
    """Return a function's name, quoted and with its schema; no two of feed's have the same name."""
    return declaration[: declaration.index("(", declaration.rindex('"', 0, declaration.index("(")))]


async def attach(connection: Any, schema: str, spec: AttachmentSpec, shape: TableShape, *, adopt: bool = False) -> int:
    """Attach a table, and return the attachment's number; its rows become postings by `feed.database.comparison`.

    `adopt` takes over postings that have the source already. Raises ConfigurationError where the table is attached already
    or the source is in use, DatabaseRefused where rights are missing, DatabaseUnavailable where a lock was not to be had:
    then the leader goes on with it, or the next call of `equip`.
    """
    require(shape)
    with translated():
        taken = await connection.fetchrow(
            "SELECT relation::text, source FROM attachment WHERE relation = $1::bigint::oid OR source = $2",
            shape.oid, spec.source,
        )  # fmt: skip
        if taken is not None:
            raise ConfigurationError(f"{taken['relation']} is attached already, as the source {taken['source']}.")
        if not adopt and await connection.fetchval("SELECT EXISTS (SELECT FROM job WHERE source = $1)", spec.source):
            raise ConfigurationError(
                f"there are postings with the source {spec.source} already. Choose another one by --source; or take them "
                "over by --adopt: those whose external_id is no key of the table are then closed."
            )
        first, *_ = await plan(connection, schema, spec, shape)

        async def record() -> None:
            for statement in first:
                await connection.execute(statement)

        await unobtrusively(connection, f"the attachment of {shape.name}", record, "attach the table again")
        number = int(await connection.fetchval("SELECT id FROM attachment WHERE source = $1", spec.source))
    await equip(connection, schema, number)
    return number


async def equip(connection: Any, schema: str, number: int, attempts: int | None = None) -> list[str]:
    """Create the triggers and their functions that are missing or out of date, and return what was changed, by relation.

    A relation with new triggers, or one that came or went since, makes a comparison necessary.
    """
    with translated():
        attached = await load(connection, schema, number)
        if attached is None or attached.row["ending"]:
            return []
        changed: list[str] = []
        bodies = {
            row["name"]: row["body"]
            for row in await connection.fetch(
                "SELECT p.proname::text AS name, p.prosrc AS body FROM pg_proc p WHERE p.pronamespace = $1::regnamespace "
                "AND p.proname LIKE $2",
                quoted(schema), f"capture\\_{number}\\_%",
            )
        }  # fmt: skip
        there = {
            (row["oid"], row["name"], row["function"])
            for row in await connection.fetch(
                "SELECT t.tgrelid::bigint AS oid, t.tgname::text AS name, p.proname::text AS function "
                "FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid "
                "WHERE NOT t.tgisinternal AND t.tgrelid = ANY ($1::bigint[]::oid[]) AND t.tgenabled <> 'D'",
                [one.oid for one in attached.relations],
            )
        }  # fmt: skip
        for relation in attached.relations:
            function = f"capture_{number}_{relation.oid}"
            if bodies.get(function) != attached.ddl.capture_body(relation):
                for statement in attached.ddl.capture_function(relation):
                    await connection.execute(statement)
                changed.append(relation.name)
            operations = ("insert", "update", "delete", "truncate")
            if any((relation.oid, attached.ddl.trigger_name(one), function) not in there for one in operations):
                create = partial(_create_triggers, connection, attached.ddl, relation)
                what = f"the triggers on {relation.name}"
                await unobtrusively(connection, what, create, "run feed attach again", attempts)
                changed.append(relation.name)
        oids = [one.oid for one in attached.relations]
        if changed or oids != [int(one) for one in attached.row["relations"]]:
            why = f"triggers were made on {', '.join(dict.fromkeys(changed))}" if changed else "its partitions changed"
            async with connection.transaction():
                await connection.execute(
                    "UPDATE attachment SET relations = $2::bigint[]::oid[] WHERE id = $1", number, oids
                )
                await connection.execute(
                    "INSERT INTO attachment_doubt (attachment, why) VALUES ($1, $2)", number, why[:500]
                )
        return list(dict.fromkeys(changed))


async def _create_triggers(connection: Any, ddl: AttachmentDdl, relation: Relation) -> None:
    for statement in ddl.triggers(relation):
        await connection.execute(statement)


async def attached_tables(connection: Any) -> list[AttachedTable]:
    """Return all attached tables, in the order in which they were attached."""
    with translated():
        return [await _told(connection, row) for row in await connection.fetch(f"{_ATTACHED} ORDER BY a.id")]


async def _told(connection: Any, row: Any) -> AttachedTable:
    counts = await connection.fetchrow(_COUNTS, row["id"], row["source"])
    spec = spec_of(row["spec"])
    going = None if row["pass"] is None else json.loads(row["pass"])
    return AttachedTable(
        number=row["id"], name=row["name"], spec=spec if row["name"] is None else replace(spec, table=row["name"]),
        attached_at=row["attached_at"], open=counts["open"], rows=row["rows"],
        read=None if going is None else going["read"], compared_at=row["compared_at"], bad=counts["bad"],
        doubts=counts["doubts"], doubt=counts["doubt"], broken=row["broken"], ending=row["ending"],
    )  # fmt: skip


def spec_of(text: str) -> AttachmentSpec:
    """Return the spec that `plan` recorded."""
    stored = json.loads(text)
    return AttachmentSpec(**{**stored, "key": tuple(stored["key"])})


async def detach(connection: Any, schema: str, number: int, *, keep: bool = False) -> int:
    """Drop everything that was created for a table, and close its postings; return how many were closed.

    `keep` leaves the postings as they are: from then on they are written like feed's own. Whatever interrupts it, the next
    call goes on. Raises NotFound where there is no such attachment, DatabaseUnavailable where a lock was not to be had.
    """
    with translated():
        row = await connection.fetchrow("UPDATE attachment SET ending = true WHERE id = $1 RETURNING source", number)
        if row is None:
            raise NotFound("there is no such attached table")
        functions = await connection.fetch(
            "SELECT p.oid::regprocedure::text AS name FROM pg_proc p WHERE p.pronamespace = $1::regnamespace "
            "AND p.proname LIKE $2 ORDER BY p.proname",
            quoted(schema), f"capture\\_{number}\\_%",
        )  # fmt: skip
        for function in functions:  # with its triggers, also where the table is somebody else's
            drop = partial(connection.execute, f"DROP FUNCTION {function['name']} CASCADE")
            await unobtrusively(connection, "the end of the triggers", drop, "run feed detach again")
        while await connection.fetchval(
            "SELECT EXISTS (SELECT FROM inbox i WHERE i.origin = $1::integer::oid)", number
        ):
            await connection.fetchrow("SELECT * FROM advance(1000)")
        closed = 0 if keep else await _close(connection, row["source"])

        async def forget() -> None:
            await connection.execute("SELECT FROM state FOR UPDATE")
            await connection.execute("DELETE FROM attachment WHERE id = $1", number)
            await connection.execute("DELETE FROM attachment_doubt WHERE attachment = $1", number)
            await connection.execute("SELECT guard_mirrored()")
            for name in await connection.fetch(
                "SELECT p.oid::regprocedure::text AS name FROM pg_proc p WHERE p.pronamespace = $1::regnamespace "
                "AND p.proname ~ $2 ORDER BY p.proname DESC",
                quoted(schema), f"^(posting_of|key_of|map)_{number}_",
            ):  # fmt: skip
                await connection.execute(f"DROP FUNCTION {name['name']}")

        await unobtrusively(connection, "the end of the attachment", forget, "run feed detach again")
        return closed


async def _close(connection: Any, source: str) -> int:
    closed = 0
    while True:
        async with connection.transaction():
            await connection.execute("SELECT set_config('feed.detach', 'on', true)")
            status = await connection.execute(
                "UPDATE job SET closed_at = clock_timestamp() WHERE id IN (SELECT j.id FROM job j WHERE j.source = $1 "
                "AND j.closed_at IS NULL LIMIT $2)",
                source, _CLOSED_AT_ONCE,
            )  # fmt: skip
        made = int(status.split()[-1])
        closed += made
        if made < _CLOSED_AT_ONCE:
            return closed


@asynccontextmanager
async def refused_expressions() -> AsyncIterator[None]:
    """Turn what the database refuses in an expression into a ConfigurationError with the database's own message."""
    try:
        yield
    except (asyncpg.SyntaxOrAccessError, asyncpg.DataError, asyncpg.FeatureNotSupportedError) as error:
        raise ConfigurationError(f"the database refuses the map: {error}") from error
