"""What feed creates in the database for an attached table, as statements: the functions that map its rows, and the triggers
on the table and on each of its partitions and children.

The map is two functions. The inner one has a parameter for each column that the map reads, and the expressions as they were
given for its body; the outer one takes a row and picks those columns by number. Postgres keeps both in parsed form (BEGIN
ATOMIC): so a column may be renamed and others may come and go, and to drop or retype one that the map reads is refused with
an error that names the function, instead of making the owner's writes fail. Both are inlined into the trigger's statements.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from feed.model.attachment import AttachmentSpec, typed

# The fields of an array in the inbox that follow the key (migrations/0010_attach.sql); None stands for one that feed sets.
_LAID_OUT = (
    None, None, "title", "company", "url", "location", "country", "workplace", "employment_type", "seniority", "tags",
    "salary_min", "salary_max", "currency", "salary_period", "latitude", "longitude", "posted_at", "valid_through", None,
    None, "closed", "description", "description_html",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReadColumn:
    """A column that the map or the key reads."""

    number: int
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Relation:
    """The table, one of its partitions, or a child that inherits from it."""

    oid: int
    name: str
    """With its schema, quoted where it must be."""
    kind: str
    """As in `pg_class.relkind`: `r` or `p`."""
    owned: bool
    """Whether feed's role owns it: only then can the triggers be made to fire under `session_replication_role = replica`."""


class AttachmentDdl:
    """The statements for one attachment."""

    def __init__(
        self, number: int, name: str, schema: str, spec: AttachmentSpec, columns: tuple[ReadColumn, ...], root: Relation
    ) -> None:
        """`name` is the table's at the time when it was attached: functions are named after it."""
        self._number = number
        self._feed = schema
        self._schema = quoted(schema)
        self._spec = spec
        self._columns = columns
        self._root = root
        named = f"{number}_{name.rpartition('.')[2].strip(chr(34))}"[:40]
        self.posting = f"{self._schema}.{quoted(f'posting_of_{named}')}"
        """The function from a row to what the inbox holds of it."""
        self.key = f"{self._schema}.{quoted(f'key_of_{named}')}"
        """The function from a row to its key, as a text."""
        self._map = f"{self._schema}.{quoted(f'map_{named}')}"

    def functions(self) -> list[str]:
        """Return the statements that create the functions of the map."""
        parameters = ", ".join(f"{quoted(column.name)} {column.type}" for column in self._columns)
        picked = ", ".join(f"(r).{quoted(column.name)}" for column in self._columns)
        values = ", ".join("NULL" if name is None else self._value(name) for name in _LAID_OUT)
        key = self._key_text()
        where = "true" if self._spec.where is None else f"(\n{self._spec.where}\n)"
        row = self._spec.table
        return [
            f"CREATE FUNCTION {self._map}({parameters}) RETURNS text[] LANGUAGE sql STABLE BEGIN ATOMIC\n"
            f"SELECT CASE WHEN {where} THEN ARRAY[{key}, {values}]::text[] ELSE ARRAY[{key}] END;\nEND",
            f"CREATE FUNCTION {self.posting}(r {row}) RETURNS text[] LANGUAGE sql STABLE BEGIN ATOMIC\n"
            f"SELECT {self._map}({picked});\nEND",
            f"CREATE FUNCTION {self.key}(r {row}) RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC\n"
            f"SELECT {self._key_text('(r).')};\nEND",
            *[
                f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC"
                for name in (f"{self._map}({', '.join(c.type for c in self._columns)})", f"{self.posting}({row})",
                             f"{self.key}({row})")
            ],
        ]  # fmt: skip

    def capture(self, relation: Relation) -> str:
        """Return the name of the trigger's function on one relation."""
        return f"{self._schema}.{quoted(f'capture_{self._number}_{relation.oid}')}"

    def capture_body(self, relation: Relation) -> str:
        """Return the code of the trigger's function on one relation, which writes changed rows to the inbox.

        A statement within a statement (a trigger of the owner's that writes to the table itself) is captured before the one
        around it. From the first such statement of a transaction on, rows are therefore read again from the table, as they
        are by now, instead of taken from what a statement wrote. They are read one by one through the key's index: a join
        would read the whole table, and have serializable transactions of others fail for it.

        A failure to serialize is the transaction's own and is passed on. Nobody is woken by NOTIFY where transactions may be
        prepared, since one that did NOTIFY may not be.
        """
        same = relation.oid == self._root.oid
        new = f"{self.posting}(ROW(r.*)::{relation.name}{'' if same else f'::{self._spec.table}'})"
        old_key = f"{self.key}(ROW(r.*)::{relation.name}{'' if same else f'::{self._spec.table}'})"
        names = [quoted(name) for name in self._spec.key]
        into = "INSERT INTO inbox (kind, job, origin) SELECT 'mirror', "
        again = (
            f"{into} coalesce((SELECT {self.posting}(t.*) FROM {self._spec.table} t\n"
            f"      WHERE {' AND '.join(f't.{name} = x.{name}' for name in names)} LIMIT 1), ARRAY[x.key]), {self._number}\n"
            f"      FROM (SELECT DISTINCT {old_key} AS key, {', '.join(f'r.{name}' for name in names)} FROM {{rows}} r) x;"
        )
        work = (
            "  IF pg_trigger_depth() > 1 THEN PERFORM set_config('feed.reread', 'on', true); END IF;\n"
            f"  IF TG_OP = 'TRUNCATE' THEN\n    {self._emptied(relation)}\n"
            "  ELSIF current_setting('feed.reread', true) = 'on' THEN\n"
            f"    IF TG_OP = 'INSERT' THEN {again.format(rows='new_rows')}\n"
            f"    ELSIF TG_OP = 'DELETE' THEN {again.format(rows='old_rows')}\n"
            f"    ELSE {again.format(rows='(SELECT * FROM new_rows UNION ALL SELECT * FROM old_rows)')}\n    END IF;\n"
            "  ELSIF TG_OP = 'INSERT' THEN\n"
            f"    {into} n.posting, {self._number} FROM (SELECT {new} AS posting FROM new_rows r OFFSET 0) n\n"
            "     WHERE cardinality(n.posting) > 1;\n"
            "  ELSIF TG_OP = 'UPDATE' THEN\n"
            f"    {into} coalesce(n.posting, o.posting[1:1]), {self._number}\n"
            f"      FROM (SELECT {new} AS posting FROM new_rows r OFFSET 0) n\n"
            f"      FULL JOIN (SELECT {new} AS posting FROM old_rows r OFFSET 0) o ON n.posting[1] = o.posting[1]\n"
            "     WHERE n.posting IS DISTINCT FROM o.posting;\n"
            f"  ELSE\n    {into} ARRAY[{old_key}], {self._number} FROM old_rows r;\n  END IF;\n"
            "  IF FOUND AND current_setting('max_prepared_transactions') = '0'\n"
            "    AND (SELECT last_value FROM armed) = 1 THEN PERFORM ring(); END IF;\n"  # a call costs, and it asks again
        )
        if self._spec.on_error == "abort":
            return f"BEGIN\n{work}  RETURN NULL;\nEND"
        return (
            f"BEGIN\n  BEGIN\n{work}"
            "  EXCEPTION WHEN serialization_failure THEN RAISE;\n"
            "  WHEN OTHERS THEN\n"
            "    BEGIN\n"
            "      INSERT INTO attachment_doubt (attachment, why)\n"
            f"      VALUES ({self._number}, format('a write could not be captured: %s (%s)', SQLERRM, SQLSTATE));\n"
            "    EXCEPTION WHEN OTHERS THEN\n"
            "      RAISE WARNING 'feed could not note that it missed a write: %', SQLERRM;\n"
            "    END;\n"
            "  END;\n  RETURN NULL;\nEND"
        )

    def capture_function(self, relation: Relation) -> list[str]:
        """Return the statements that create the trigger's function on one relation, or bring it up to date.

        It runs with its owner's rights, so that who writes to the table needs none in feed's schema.
        """
        name = self.capture(relation)
        return [
            f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
            f"SET search_path = {self._schema}, pg_temp SET TimeZone = 'UTC' SET DateStyle = 'ISO, YMD' "
            "SET extra_float_digits = 1 SET jit = off SET enable_nestloop = off SET row_security = off "
            f"AS {literal(self.capture_body(relation))}",
            f"REVOKE ALL ON FUNCTION {name}() FROM PUBLIC",
        ]

    def triggers(self, relation: Relation) -> list[str]:
        """Return the statements that create the triggers on one relation, in the place of those that are there."""
        execute = f"FOR EACH STATEMENT EXECUTE FUNCTION {self.capture(relation)}()"
        seen = {
            "insert": "REFERENCING NEW TABLE AS new_rows",
            "update": "REFERENCING NEW TABLE AS new_rows OLD TABLE AS old_rows",
            "delete": "REFERENCING OLD TABLE AS old_rows",
            "truncate": "",
        }
        made = [
            f"CREATE OR REPLACE TRIGGER {self._trigger(one)} AFTER {one.upper()} ON {relation.name} {rows} {execute}"
            for one, rows in seen.items()
        ]
        if relation.owned:
            made += [f"ALTER TABLE ONLY {relation.name} ENABLE ALWAYS TRIGGER {self._trigger(one)}" for one in seen]
        return made

    def trigger_name(self, operation: str) -> str:
        """Return the name of the trigger for one operation, not quoted."""
        return f"{self._feed}_{self._number}_{operation}"

    def _trigger(self, operation: str) -> str:
        return quoted(self.trigger_name(operation))

    def _emptied(self, relation: Relation) -> str:
        """Return the statement for TRUNCATE. A part of the table that was emptied is found by comparing all of it."""
        if relation.oid == self._root.oid and relation.kind == "p":
            return f"INSERT INTO inbox (kind, job, origin) VALUES ('mirror', '{{}}', {self._number});"
        alone = f"NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = {relation.oid})"
        why = "'a part of the table was truncated'"
        doubt = f"INSERT INTO attachment_doubt (attachment, why) VALUES ({self._number}, {why});"
        if relation.oid != self._root.oid:
            return doubt
        return (
            f"IF {alone} THEN INSERT INTO inbox (kind, job, origin) VALUES ('mirror', '{{}}', {self._number});\n"
            f"    ELSE {doubt} END IF;"
        )

    def _value(self, name: str) -> str:
        if name == "closed":
            if self._spec.closed is None:
                return "NULL"
            closed = f"(\n{self._spec.closed}\n)"
            return (
                f"{closed}::timestamptz::text" if self._spec.closed_is_time else f"CASE WHEN {closed} THEN 'true' END"
            )
        if name not in self._spec.fields:
            return "NULL"
        value = typed(name, self._spec.fields[name])
        return f"to_json({value})::text" if name == "tags" else f"{value}::text"

    def _key_text(self, prefix: str = "") -> str:
        parts = [f"{prefix}{quoted(name)}::text" for name in self._spec.key]
        return parts[0] if len(parts) == 1 else f"json_build_array({', '.join(parts)})::text"

    # How reconcile() of 0010_attach.sql is asked: $1 is the place to go on from, as texts, and $2 the most rows.

    def rows_query(self, types: Mapping[str, str]) -> str:
        """Return the query for the next rows of the table, in the order of its key."""
        columns = ", ".join(f"t.{quoted(name)}" for name in self._spec.key)
        places = ", ".join(f"($1::text[])[{n}]::{types[name]}" for n, name in enumerate(self._spec.key, 1))
        place = ", ".join(f"t.{quoted(name)}::text" for name in self._spec.key)
        row = f"ROW(t.*)::{self._spec.table}"
        return (
            f"SELECT {self.posting}({row}) AS posting, ARRAY[{place}] AS place FROM (SELECT t.* FROM {self._spec.table} t "
            f"WHERE $1::text[] IS NULL OR ({columns}) > ({places}) ORDER BY {columns} LIMIT $2::integer) t"
        )

    def key_query(self, types: Mapping[str, str]) -> str:
        """Return the query for the keys and places of the next rows, which leaves the map alone."""
        return self.rows_query(types).replace(self.posting, self.key, 1)

    def next_mirrored_query(self) -> str:
        """Return the query for the next mirrored posting, as one whose row is gone: its external id can be no key."""
        return self._mirrored("ARRAY[j.external_id]")

    def gone_query(self, types: Mapping[str, str]) -> str:
        """Return the query for mirrored postings, in the order of their keys, which finds those whose row is gone."""
        if len(self._spec.key) == 1:
            [name] = self._spec.key
            same = f"t.{quoted(name)} = j.external_id::{types[name]}"
        else:
            same = " AND ".join(
                f"t.{quoted(name)} = (j.external_id::json ->> {n})::{types[name]}"
                for n, name in enumerate(self._spec.key)
            )
        return (
            f"{self._mirrored('CASE WHEN t.there IS NULL THEN ARRAY[j.external_id] END')} "
            f"LEFT JOIN LATERAL (SELECT true AS there FROM {self._spec.table} t WHERE {same} LIMIT 1) t ON true"
        )

    def _mirrored(self, posting: str) -> str:
        return (
            f"SELECT {posting} AS posting, ARRAY[j.external_id] AS place FROM (SELECT j.external_id FROM job j "
            f"WHERE j.source = {literal(self._spec.source)} "
            "AND ($1::text[] IS NULL OR j.external_id > ($1::text[])[1]) ORDER BY j.external_id LIMIT $2::integer) j"
        )


def quoted(name: str) -> str:
    """Return an SQL identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return an SQL string constant; `standard_conforming_strings` is on, as it is by default."""
    return "'" + text.replace("'", "''") + "'"
