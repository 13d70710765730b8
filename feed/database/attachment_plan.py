"""The plan of an attachment: the statements that attach a table, for feed itself or for an administrator to run."""

import json
from dataclasses import asdict
from typing import Any

from feed.database.attachment_ddl import AttachmentDdl, ReadColumn, literal, quoted
from feed.database.attachments import relations_of
from feed.model.attachment import AttachmentSpec, typed
from feed.model.table import TableShape

_READ_COLUMNS = """
SELECT DISTINCT d.refobjsubid::integer AS number, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type
  FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
  JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
 WHERE r.ev_class = $1::text::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $2::bigint::oid
   AND d.refobjsubid > 0
 ORDER BY 1
"""


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
