"""A guess at the map of an attached table, from the names and types of its columns and a few of its rows."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feed.model.attachment import FIELDS
from feed.model.column_names import (
    CURRENCIES,
    DRAFT,
    NAMES,
    OPEN,
    PERIODS,
    SALARY_PERIODS,
    WORKPLACES,
    folded,
    stripped,
)
from feed.model.table import Column, TableShape

_HTML = re.compile(r"<(?:p|br|ul|ol|li|div|h[1-6]|strong|b|em|span|a)\b[^>]*>", re.IGNORECASE)
_INTEGERS = ("smallint", "integer", "bigint")
_SECONDS = 100_000_000
"""A count over this may be one of seconds since 1970: under it, the time would be before March 1973."""
_MILLISECONDS = 100_000_000_000
"""A count since 1970 over this is one of milliseconds: as seconds it would be a time after the year 5000."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Guess:
    """What a table's columns seem to mean. Nothing is guessed without a column that looks like it."""

    fields: dict[str, str]
    """Expressions by the posting's field, in the order of FIELDS; what a posting needs may be missing."""
    where: str | None
    closed: str | None
    unused: tuple[Column, ...]
    """Columns that were not used, in the table's order."""


def guess(shape: TableShape, rows: Sequence[Row] = ()) -> Guess:
    """Guess the map of a table from its columns and a few `rows`, which hold values by the columns' names."""
    return _Guessing(shape, rows).guess()


class _Guessing:
    """One guess: each column is used once, by the likeliest of the fields that want it."""

    def __init__(self, shape: TableShape, rows: Sequence[Row]) -> None:
        self._shape = shape
        self._rows = rows
        self._fields: dict[str, str] = {}
        self._used: set[str] = set()
        self._names = {column.name: folded(column.name) for column in shape.columns}
        self._where: list[str] = []
        self._closed: list[str] = []

    def guess(self) -> Guess:
        self._texts()
        self._salaries()
        self._times()
        self._workplace()
        self._states()
        self._place()
        self._tags()
        unused = tuple(column for column in self._shape.columns if column.name not in self._used)
        return Guess(
            {name: self._fields[name] for name in FIELDS if name in self._fields},
            " AND ".join(self._where) or None,
            " OR ".join(self._closed) or None,
            unused,
        )

    # Which column is it?

    def _column(self, what: str, fits: Callable[[Column], bool]) -> Column | None:
        """Return the column with the likeliest name for `what` that `fits`, and count it as used; None: there is none."""
        for name in NAMES[what]:
            for strip in (False, True):
                for column in self._shape.columns:
                    own = self._names[column.name]
                    if (stripped(own) if strip else own) == name and column.name not in self._used and fits(column):
                        self._used.add(column.name)
                        return column
        return None

    def _values(self, column: Column) -> list[Any]:
        return [value for row in self._rows if (value := row.get(column.name)) is not None and value != ""]

    def _is_address(self, column: Column) -> bool:
        """Whether it is a text, and most of its values begin like a web address."""
        values = self._values(column)
        return _is_text(column) and sum(str(one).startswith(("http://", "https://")) for one in values) * 2 >= len(
            values
        )

    def _is_flag(self, column: Column) -> bool:
        """Whether it is a boolean, or a number that is only 0 or 1."""
        values = self._values(column)
        return column.category == "B" or (column.type in _INTEGERS and bool(values) and set(values) <= {0, 1})

    def _is_time(self, column: Column) -> bool:
        """Whether it is a time, a date, or a number that can be a time since 1970."""
        values = self._values(column)
        counts = column.type in _INTEGERS and bool(values) and min(values) > _SECONDS
        return column.type.startswith("timestamp") or column.type == "date" or counts

    # What stands in it?

    def _texts(self) -> None:
        for what in ("company", "title", "employment_type", "seniority"):
            if column := self._column(what, _is_name):
                self._fields[what] = column.quoted
        if column := self._column("url", self._is_address):
            self._fields["url"] = column.quoted
        if column := self._column("description_html", _is_text):
            self._fields["description_html"] = column.quoted
        if column := self._column("description", _is_text):
            marked = any(_HTML.search(str(value)) for value in self._values(column))
            self._fields["description_html" if marked else "description"] = column.quoted

    def _salaries(self) -> None:
        salaries = {what: self._column(what, _is_number) for what in ("salary_min", "salary_max")}
        if not any(salaries.values()):
            salaries = dict.fromkeys(salaries, self._column("salary", _is_number))
        found = {what: column for what, column in salaries.items() if column is not None}
        words: set[str] = set()
        for what, salary in found.items():
            own = self._names[salary.name].split("_")
            words.update(own)
            self._fields[what] = f"{salary.quoted} / 100.0" if own[-1] in ("cents", "cent") else salary.quoted
        if column := self._column("currency", _is_name):
            self._fields["currency"] = column.quoted
        elif currency := next((CURRENCIES[word] for word in sorted(words) if word in CURRENCIES), None):
            self._fields["currency"] = f"'{currency}'"
        if column := self._column("salary_period", _is_name):
            self._fields["salary_period"] = _chosen(column, PERIODS)
        elif period := next((SALARY_PERIODS[word] for word in sorted(words) if word in SALARY_PERIODS), None):
            self._fields["salary_period"] = f"'{period}'"

    def _times(self) -> None:
        if column := self._column("posted_at", self._is_time):
            self._fields["posted_at"] = self._time(column)
        if column := self._column("valid_through", self._is_time):
            # A day counts to its end.
            self._fields["valid_through"] = (
                f"({column.quoted} + 1)::timestamp AT TIME ZONE 'UTC'" if column.type == "date" else self._time(column)
            )

    def _time(self, column: Column) -> str:
        if column.type == "date":
            return f"{column.quoted}::timestamp AT TIME ZONE 'UTC'"
        if column.category == "N":
            large = any(int(value) > _MILLISECONDS for value in self._values(column))
            return f"to_timestamp({column.quoted} / 1000.0)" if large else f"to_timestamp({column.quoted})"
        return f"{column.quoted} AT TIME ZONE 'UTC'" if "without time zone" in column.type else column.quoted

    def _workplace(self) -> None:
        if column := self._column("workplace", _is_name):
            self._fields["workplace"] = _chosen(column, WORKPLACES)
            return
        remote = self._column("remote", lambda one: one.category in "BSE")
        hybrid = self._column("hybrid", lambda one: one.category == "B")
        if remote is not None and remote.category != "B":
            self._fields["workplace"] = _chosen(remote, WORKPLACES)
        elif cases := [
            f"WHEN {column.quoted} THEN '{value}'"
            for value, column in (("hybrid", hybrid), ("remote", remote))
            if column is not None
        ]:
            self._fields["workplace"] = f"CASE {' '.join(cases)} END"

    def _states(self) -> None:
        """Find what makes a row no posting (`where`) or a closed one (`closed`)."""
        if column := self._column("published", self._is_flag):
            self._where.append(_true(column))
        if column := self._column("draft", self._is_flag):
            self._where.append(_false(column))
        if column := self._column("status", lambda one: _is_name(one) and bool(self._open_values(one))):
            values = {folded(value): value for value in self._known_values(column)}
            name = column.quoted if column.not_null else f"coalesce({_as_text(column)}, '')"
            if drafts := [value for key, value in values.items() if key in DRAFT]:
                self._where.append(f"{name} NOT IN ({_literals(drafts)})")
            self._closed.append(f"{name} NOT IN ({_literals(self._open_values(column))})")
        if column := self._column("active", self._is_flag):
            self._closed.append(_false(column))
        if column := self._column("inactive", self._is_flag):
            self._closed.append(_true(column))
        if column := self._column("ended", lambda one: one.type.startswith("timestamp") or one.type == "date"):
            # Alone it says since when as well.
            self._closed.append(f"{column.quoted} IS NOT NULL" if self._closed else self._time(column))

    def _known_values(self, column: Column) -> list[str]:
        return list(column.labels) or list(dict.fromkeys(str(value) for value in self._values(column)))

    def _open_values(self, column: Column) -> list[str]:
        return [value for value in self._known_values(column) if folded(value) in OPEN]

    def _place(self) -> None:
        if column := self._column("location", _is_name):
            self._fields["location"] = column.quoted
            city, country = None, self._column("country", _is_name)
        else:
            city, country = self._column("city", _is_name), self._column("country", _is_name)
        if city is not None:
            postcode = self._column("postcode", lambda one: one.category in "SN")
            region = self._column("region", _is_name)
            place = city.quoted if postcode is None else f"concat_ws(' ', {postcode.quoted}, {city.quoted})"
            self._fields["location"] = place if region is None else f"concat_ws(', ', {place}, {region.quoted})"
        if country is not None:
            self._fields["country"] = country.quoted
        points = {what: self._column(what, _is_number) for what in ("latitude", "longitude")}
        if all(points.values()):
            self._fields |= {what: column.quoted for what, column in points.items() if column is not None}
        else:
            self._used -= {column.name for column in points.values() if column is not None}

    def _tags(self) -> None:
        column = self._column("tags", lambda one: one.category in "AS" or one.type in ("json", "jsonb"))
        if column is None:
            return
        name = column.quoted
        if column.category == "A":
            self._fields["tags"] = name
        elif column.type in ("json", "jsonb"):
            elements = f"ARRAY(SELECT {column.type}_array_elements_text({name}))"
            self._fields["tags"] = f"CASE {column.type}_typeof({name}) WHEN 'array' THEN {elements} END"
        else:
            values = [str(value) for value in self._values(column)]
            mark = next((mark for mark in (";", "|") if any(mark in value for value in values)), ",")
            spaced = f"replace({name}, '{mark} ', '{mark}')"
            self._fields["tags"] = f"string_to_array({spaced}, '{mark}')"


def _is_text(column: Column) -> bool:
    return column.category == "S"


def _is_name(column: Column) -> bool:
    return column.category in "SE"


def _is_number(column: Column) -> bool:
    return column.category == "N" and column.type not in ("oid", "money", "regclass")


def _true(column: Column) -> str:
    if column.category != "B":
        return f"{column.quoted} = 1" if column.not_null else f"coalesce({column.quoted}, 0) = 1"
    return column.quoted if column.not_null else f"{column.quoted} IS TRUE"


def _false(column: Column) -> str:
    if column.category != "B":
        return f"{column.quoted} = 0" if column.not_null else f"coalesce({column.quoted}, 0) = 0"
    return f"NOT {column.quoted}" if column.not_null else f"{column.quoted} IS NOT TRUE"


def _as_text(column: Column) -> str:
    return f"{column.quoted}::text" if column.category == "E" else column.quoted


def _literals(values: Sequence[str]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def _chosen(column: Column, choices: Mapping[str, Sequence[str]]) -> str:
    """Return a CASE that turns the column's words into those of a posting; where an enum names them, only its own."""
    labels = {label.lower() for label in column.labels}
    cases = []
    for ours, theirs in choices.items():
        words = [word for word in theirs if not labels or word in labels]
        if words:
            cases.append(f"WHEN lower({_as_text(column)}) IN ({_literals(words)}) THEN '{ours}'")
    return f"CASE {' '.join(cases)} END" if cases else "NULL"
