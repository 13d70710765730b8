"""What the database says to the map of a table before it is attached: errors and types of its expressions, sample rows."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import orjson
from pydantic import ValidationError

from feed.database.connect import translated
from feed.model.attach_map import MapError, listed, refuse_moving
from feed.model.attachment import COORDINATES, LISTS, MONEY, REQUIRED, TIMES, AttachmentSpec, typed
from feed.model.posting import PostingIn, faults_of
from feed.model.table import TableShape

_CHARACTERS = 2000
"""Of a text that is only looked at, the beginning."""
_TYPE = "SELECT format_type($1, NULL) AS name, t.typcategory::text AS category FROM pg_type t WHERE t.oid = $1"


@dataclass(frozen=True, slots=True)
class Checked:
    """A map whose expressions the database takes."""

    spec: AttachmentSpec
    notes: tuple[str, ...]
    """How expressions were read that could be meant in another way."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a map makes of some rows."""

    looked: int
    """Rows that were read."""
    postings: tuple[dict[str, Any], ...]
    """Postings of those rows that are open, as far as they have a value; at most as many as were asked for."""
    unwanted: int
    """Rows that --where leaves out."""
    closed: int
    """Rows whose posting is closed."""
    refused: dict[str, int]
    """How many rows make no posting, by the reason."""
    dropped: dict[str, int]
    """How many values are left out because no posting may have them, by field and reason."""


async def checked(connection: Any, shape: TableShape, spec: AttachmentSpec) -> Checked:
    """Have the database parse every expression of `spec`, and fit their types to those of a posting's fields.

    Raises MapError, with the database's own words, for an expression that it refuses or that has another type.
    """
    notes: list[str] = []
    fields: dict[str, str] = {}
    closed, is_time = spec.closed, False
    with translated():
        async with _reading(connection, shape):
            for field, expression in spec.fields.items():
                kind = await _type(connection, shape, f"--map {field}", expression)
                fields[field] = _fitted(field, expression, kind, notes)
            if spec.where is not None:
                _boolean("--where", spec.where, await _type(connection, shape, "--where", spec.where))
            if closed is not None:
                kind = await _type(connection, shape, "--closed", closed)
                is_time = kind[1] == "D"
                if is_time:
                    closed = _time("--closed", closed, kind[0], notes)
                else:
                    _boolean("--closed", closed, kind)
    return Checked(replace(spec, fields=fields, closed=closed, closed_is_time=is_time), tuple(notes))


@asynccontextmanager
async def _reading(connection: Any, shape: TableShape) -> AsyncIterator[None]:
    """Hold a transaction in which functions of the table's schema are found, as they are where the map is created."""
    async with connection.transaction(readonly=True):
        await connection.execute(f"SET LOCAL search_path = {shape.schema}, public")
        yield


async def first_rows(connection: Any, shape: TableShape, count: int) -> list[dict[str, Any]]:
    """Return some rows by the names of their columns, for a guess: numbers, flags and the beginnings of texts."""
    looked = [column for column in shape.columns if column.category in "SNBED"]
    if not looked:
        return []
    values = ", ".join(
        f"left({column.quoted}::text, {_CHARACTERS}) AS {column.quoted}" if column.category == "S" else column.quoted
        for column in looked
    )
    with translated():
        rows = await connection.fetch(
            f"SELECT to_jsonb(s)::text AS row FROM (SELECT {values} FROM {shape.name} LIMIT $1) s", count
        )
    return [orjson.loads(row["row"]) for row in rows]


async def sample(connection: Any, shape: TableShape, spec: AttachmentSpec, count: int, shown: int) -> Sample:
    """Return what a checked `spec` makes of `count` rows of the table, with the first `shown` open postings.

    Raises MapError for an expression that fails for one of the rows.
    """
    columns = {field: typed(field, expression) for field, expression in spec.fields.items()}
    for field in ("description", "description_html"):
        if field in columns:
            columns[field] = f"left({columns[field]}, {_CHARACTERS})"
    wanted = "true" if spec.where is None else f"coalesce((\n{spec.where}\n), false)"
    closed = "false" if spec.closed is None else _is_closed(spec)
    with translated():
        try:
            async with _reading(connection, shape):
                rows = await connection.fetch(_select(shape, columns | {"?wanted": wanted, "?closed": closed}), count)
        except (asyncpg.DataError, asyncpg.RaiseError) as error:
            raise await _culprit(connection, shape, spec, count, error) from error
    postings: list[dict[str, Any]] = []
    refused: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    wanted_rows = [row for row in rows if row["?wanted"]]
    for row in wanted_rows:
        posting, why = _posting(spec, row, dropped)
        if why is not None:
            refused[why] += 1
        elif not row["?closed"] and len(postings) < shown:
            postings.append(posting)
    return Sample(
        len(rows), tuple(postings), len(rows) - len(wanted_rows), sum(row["?closed"] for row in wanted_rows),
        dict(refused.most_common()), dict(dropped.most_common()),
    )  # fmt: skip


def _posting(spec: AttachmentSpec, row: Mapping[str, Any], dropped: Counter[str]) -> tuple[dict[str, Any], str | None]:
    """Return the posting of one row, and why it is none; what is left out of it is counted in `dropped`."""
    given = {field: row[field] for field in spec.fields if row[field] is not None and row[field] != ""}
    for field in ("workplace", "salary_period"):
        if field in given:
            given[field] = given[field].lower()
    if "currency" in given:
        given["currency"] = given["currency"].strip().upper()
    known = {field: value for field, value in given.items() if field in PostingIn.model_fields}
    try:
        PostingIn.model_validate({"source": spec.source} | known)
    except ValidationError as error:
        for fault in faults_of(error):
            field = fault.field.partition(".")[0]
            if field in REQUIRED:
                return given, f"{field}: {fault.message}"
            dropped[f"{field}: {fault.message}"] += 1
            given.pop(field, None)
    return given, None


async def _type(connection: Any, shape: TableShape, place: str, expression: str) -> tuple[str, str]:
    """Return the name and the category of an expression's type; raises MapError where the database refuses it.

    It stands in a WHERE as well, where an aggregate, a window function or a function that returns a set is refused.
    """
    refuse_moving(place, expression)
    rows = f'(SELECT * FROM {shape.name}) AS "?row"'
    query = f"SELECT (\n{expression}\n) AS value FROM {rows} WHERE (\n{expression}\n) IS NULL"
    try:
        statement = await connection.prepare(query)
        if statement.get_parameters():
            raise MapError(f"{place}: {expression!r} has a parameter ($1), for which there is no value")
        row = await connection.fetchrow(_TYPE, statement.get_attributes()[0].type.oid)
    except (asyncpg.SyntaxOrAccessError, asyncpg.DataError, asyncpg.FeatureNotSupportedError) as error:
        raise MapError(f"{place}: the database refuses {expression!r}: {_words(error)} {listed(shape)}") from error
    return row["name"], row["category"]


def _words(error: asyncpg.PostgresError) -> str:
    """Return what the database says, with its hint, as sentences."""
    said = [getattr(error, "message", None) or str(error), getattr(error, "hint", None)]
    return " ".join(f"{text.rstrip('.')}." for text in said if text)


def _fitted(field: str, expression: str, kind: tuple[str, str], notes: list[str]) -> str:
    """Return `expression` with a type that can be cast to the field's without a loss; raises MapError."""
    name, category = kind
    place = f"--map {field}"
    inner = expression if expression.replace("_", "").isalnum() else f"({expression})"
    if field in TIMES:
        return _time(place, expression, name, notes, category)
    if field in LISTS:
        if category == "A":
            return expression
        cures = {"S": f"string_to_array({inner}, ',')", "U": f"ARRAY(SELECT {name}_array_elements_text({inner}))"}
        raise _mistyped(place, expression, name, "a list of texts", cures.get(category) if name != "uuid" else None)
    if field in (*MONEY, *COORDINATES):
        if category == "N":
            return expression
        raise _mistyped(place, expression, name, "a number", f"{inner}::numeric" if category == "S" else None)
    cure = {
        "A": f"array_to_string({inner}, ', ')",
        "B": f"CASE WHEN {inner} THEN '{'remote' if field == 'workplace' else '...'}' END",
        "U": f"{inner} ->> 'name'" if name in ("json", "jsonb") else None,
    }.get(category)
    if category in "AB" or name in ("json", "jsonb", "bytea", "record"):
        raise _mistyped(place, expression, name, "text", cure)
    return expression


def _time(place: str, expression: str, name: str, notes: list[str], category: str = "D") -> str:
    """Return an expression of a time as one with a time zone; raises MapError where it is no time."""
    inner = expression if expression.replace("_", "").isalnum() else f"({expression})"
    if name == "timestamp with time zone":
        return expression
    if name in ("timestamp without time zone", "date"):
        zoned = f"{inner}::timestamp" if name == "date" else inner
        notes.append(
            f"{place}: {expression} has no time zone and is read as UTC; for another one write "
            f"{zoned} AT TIME ZONE 'Europe/Berlin'"
        )
        return f"{zoned} AT TIME ZONE 'UTC'"
    cures = {"S": f"{inner}::timestamptz", "N": f"to_timestamp({inner})"}
    raise _mistyped(place, expression, name, "a time", cures.get(category))


def _boolean(place: str, expression: str, kind: tuple[str, str]) -> None:
    """Raise MapError for a condition that is not true or false."""
    if kind[1] != "B":
        what = "true or false" if place == "--where" else "true or false, or a time"
        cures = {"S": f"{expression} = '...'", "E": f"{expression} = '...'", "N": f"{expression} = 0"}
        raise _mistyped(place, expression, kind[0], what, cures.get(kind[1]))


def _mistyped(place: str, expression: str, name: str, wanted: str, cure: str | None) -> MapError:
    """Return the error for an expression of another type, with what to write instead where that is known."""
    advice = f"; write {cure}" if cure else ""
    if cure == f"{expression}::numeric" or cure == f"({expression})::numeric":
        advice = f": add ::numeric ({cure})"
    return MapError(f"{place}: {expression!r} is {name}, not {wanted}{advice}")


def _is_closed(spec: AttachmentSpec) -> str:
    closed = f"(\n{spec.closed}\n)"
    return f"{closed} IS NOT NULL" if spec.closed_is_time else f"coalesce({closed}, false)"


def _select(shape: TableShape, columns: Mapping[str, str]) -> str:
    listed_columns = ", ".join(f'{expression} AS "{name}"' for name, expression in columns.items())
    return f'SELECT {listed_columns} FROM (SELECT * FROM {shape.name} LIMIT $1) AS "?row"'


async def _culprit(
    connection: Any, shape: TableShape, spec: AttachmentSpec, count: int, error: asyncpg.PostgresError
) -> MapError:
    """Return the error for the expression that fails for one of the rows."""
    places: Sequence[tuple[str, str, str]] = [
        *((f"--map {field}", given, typed(field, given)) for field, given in spec.fields.items()),
        *(("--where", one, f"(\n{one}\n)") for one in (spec.where,) if one is not None),
        *(("--closed", one, f"(\n{one}\n)") for one in (spec.closed,) if one is not None),
    ]
    for place, given, expression in places:
        try:
            async with _reading(connection, shape):
                await connection.fetch(_select(shape, {"value": expression}), count)
        except (asyncpg.DataError, asyncpg.RaiseError) as found:
            return MapError(
                f"{place}: {given!r} fails for some of the rows: {_words(found)} Write it so that it gives null for them, "
                "such as with CASE or nullif."
            )
    return MapError(f"the map fails for some of the rows: {_words(error)}")
