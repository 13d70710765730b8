"""Attached tables as the database knows them: what was recorded, and how they are doing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from feed.database.attachment_ddl import AttachmentDdl, ReadColumn, Relation
from feed.database.connect import translated
from feed.model.attachment import AttachmentSpec

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
