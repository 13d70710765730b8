"""What a table of somebody else's looks like: its columns, keys, partitions and children, and feed's rights to them."""

from typing import Any

import asyncpg

from feed.database.connect import translated
from feed.errors import ConfigurationError, DatabaseRefused
from feed.model.table import Column, Key, TableShape

_FIND = """
SELECT c.oid::bigint AS oid, n.nspname AS schema, quote_ident(n.nspname) AS quoted_schema,
       format('%I.%I', n.nspname, c.relname) AS name, c.relkind::text AS kind,
       c.relispartition, c.relpersistence::text AS persistence,
       (SELECT format('%I.%I', s.nspname, p.relname) FROM pg_class p JOIN pg_namespace s ON s.oid = p.relnamespace
         WHERE p.oid = pg_partition_root(c.oid)) AS root,
       (SELECT coalesce(sum(greatest(l.reltuples, 0)), 0)::bigint FROM tree t JOIN pg_class l ON l.oid = t.oid
         WHERE l.relkind = 'r') AS rows,
       current_user::text AS user, quote_ident(current_user) AS role,
       quote_ident(pg_get_userbyid(c.relowner)) AS owner, pg_has_role(c.relowner, 'USAGE') AS owned,
       CASE WHEN c.relkind IN ('r', 'p') THEN row_security_active(c.oid) END AS guarded
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = $1::bigint::oid
"""
# Looked for in the catalogue, which tells of tables in schemas that the role may not use.
_OID = """
WITH given AS (SELECT parse_ident($1) AS parts)
SELECT c.oid::bigint FROM given g JOIN pg_class c ON c.relname = g.parts[cardinality(g.parts)]
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE cardinality(g.parts) = 2 AND n.nspname = g.parts[1]
    OR cardinality(g.parts) = 1 AND n.nspname = ANY (current_schemas(false) || name 'public')
 ORDER BY array_position(current_schemas(false), n.nspname) LIMIT 1
"""
_TREE = """
WITH RECURSIVE tree(oid) AS (
  SELECT $1::bigint::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN tree t ON i.inhparent = t.oid)
"""
_LEAVES = f"""
{_TREE} SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relkind::text AS kind
  FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE t.oid <> $1::bigint::oid AND c.relkind IN ('r', 'f') ORDER BY n.nspname, c.relname
"""
_COLUMNS = """
WITH RECURSIVE base(attnum, oid) AS (
  SELECT a.attnum, a.atttypid FROM pg_attribute a WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL SELECT b.attnum, t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.oid WHERE t.typtype = 'd')
SELECT a.attname::text AS name, quote_ident(a.attname) AS quoted, format_type(a.atttypid, a.atttypmod) AS type,
       t.typcategory::text AS category, a.attnotnull AS not_null,
       (SELECT array_agg(e.enumlabel::text ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid) AS labels
  FROM base b JOIN pg_type t ON t.oid = b.oid AND t.typtype <> 'd'
  JOIN pg_attribute a ON a.attrelid = $1::bigint::oid AND a.attnum = b.attnum ORDER BY a.attnum
"""
_KEYS = """
SELECT array_agg(a.attname::text ORDER BY k.n) AS columns, i.indisprimary AS primary
  FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY k(attnum, n)
  LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
 WHERE i.indrelid = $1::bigint::oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
   AND k.n <= i.indnkeyatts
 GROUP BY i.indexrelid, i.indisprimary HAVING bool_and(coalesce(a.attnotnull, false) AND k.attnum > 0)
 ORDER BY i.indisprimary DESC, count(*), i.indexrelid
"""
_RIGHTS = f"""
{_TREE} SELECT format('GRANT USAGE ON SCHEMA %I TO %I;', n.nspname, current_user) AS grant, 0 AS rank
  FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT has_schema_privilege(n.oid, 'USAGE') GROUP BY n.nspname
UNION ALL
SELECT format('GRANT %s ON %I.%I TO %I;', array_to_string(l.lacking, ', '), n.nspname, c.relname, current_user),
       1 + (t.oid <> $1::bigint::oid)::int
  FROM tree t JOIN pg_class c ON c.oid = t.oid JOIN pg_namespace n ON n.oid = c.relnamespace
  CROSS JOIN LATERAL (SELECT array_agg(p) AS lacking FROM unnest(ARRAY['SELECT', 'TRIGGER']) p
                       WHERE NOT has_table_privilege(c.oid, p)) l
 WHERE l.lacking IS NOT NULL ORDER BY 2, 1
"""
_ALIKE = """
SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema', $2)
   AND n.nspname NOT LIKE 'pg\\_%' AND lower(c.relname) = lower($1)
 ORDER BY 1 LIMIT 5
"""
_OWN = "SELECT coalesce(current_schema(), '')"
_KINDS = {
    "v": "a view: it has no rows of its own that a trigger could watch; attach the table that it reads from",
    "m": "a materialized view: it changes only when it is refreshed; attach the table that it reads from",
    "f": "a foreign table: its rows are written elsewhere, where no trigger of this database sees it",
    "S": "a sequence",
    "i": "an index",
    "I": "an index",
    "c": "a type",
}


async def describe(connection: Any, table: str) -> TableShape:
    """Return the shape of `table`, which is named as in SQL; without a schema it is looked for in `public`, too.

    Raises ConfigurationError where there is no such table, or where it is nothing that can be attached.
    """
    with translated():
        oid = await _oid(connection, table)
        row = await connection.fetchrow(f"{_TREE} {_FIND}", oid)
        _check(row, await connection.fetchval(_OWN))
        leaves = await connection.fetch(_LEAVES, oid)
        if remote := [leaf["name"] for leaf in leaves if leaf["kind"] == "f"]:
            raise ConfigurationError(
                f"{row['name']} has a partition that is a foreign table ({remote[0]}), whose writes are not seen here."
            )
        return TableShape(
            oid=oid,
            name=row["name"],
            columns=tuple([_column(one) for one in await connection.fetch(_COLUMNS, oid)]),
            keys=tuple(Key(tuple(one["columns"]), one["primary"]) for one in await connection.fetch(_KEYS, oid)),
            partitioned=row["kind"] == "p",
            leaves=tuple(leaf["name"] for leaf in leaves),
            rows=row["rows"],
            role=row["role"],
            owner=row["owner"],
            owned=row["owned"],
            row_security=_hides(row) if row["guarded"] else None,
            schema=row["quoted_schema"],
            grants=tuple(one["grant"] for one in await connection.fetch(_RIGHTS, oid)),
        )


def _column(row: Any) -> Column:
    labels = tuple(row["labels"] or ())
    return Column(row["name"], row["quoted"], row["type"], row["category"], row["not_null"], labels)


async def _oid(connection: Any, table: str) -> int:
    """Return the table's oid; raises ConfigurationError, which names tables that may have been meant."""
    try:
        oid = await connection.fetchval(_OID, table)
    except (asyncpg.InvalidParameterValueError, asyncpg.PostgresSyntaxError):
        oid = None  # it is no name at all
    if oid is not None:
        return int(oid)
    alike = await connection.fetch(_ALIKE, table.rpartition(".")[2].strip('"'), await connection.fetchval(_OWN))
    hint = f" Did you mean {' or '.join(row[0] for row in alike)}?" if alike else ""
    raise ConfigurationError(
        f"There is no table {table} in the database {await connection.fetchval('SELECT current_database()')}."
        f'{hint} Give its name with its schema, quoted as in SQL: public.vacancies, \'"Jobs"."Open"\'.'
    )


def _check(row: Any, own: str) -> None:
    """Raise ConfigurationError for what cannot be attached."""
    name = row["name"]
    if row["schema"] in (own, "pg_catalog", "information_schema"):
        raise ConfigurationError(f"{name} belongs to {'feed' if row['schema'] == own else 'Postgres'} itself.")
    if row["kind"] not in ("r", "p"):
        raise ConfigurationError(f"{name} is {_KINDS.get(row['kind'], 'no table')}.")
    if row["relispartition"]:
        raise ConfigurationError(f"{name} is a partition: attach the whole table, {row['root']}.")
    if row["persistence"] == "t":
        raise ConfigurationError(f"{name} is a temporary table, which no other session sees.")


def _hides(row: Any) -> str:
    return (
        f"row security on {row['name']} may hide rows from the role {row['role']}, and what it hides would be closed. As an "
        f"administrator run: ALTER ROLE {row['role']} BYPASSRLS;"
    )


def require(shape: TableShape) -> None:
    """Raise DatabaseRefused, which names the statements that help, where the role lacks a right to the table."""
    if shape.grants:
        raise DatabaseRefused(
            f"the role {shape.role} lacks rights to {shape.name}. As its owner or an administrator run: "
            f"{' '.join(shape.grants)} (`feed attach {shape.name} --sql` prints all that is to be run)."
        )
    if shape.row_security:
        raise DatabaseRefused(shape.row_security)
