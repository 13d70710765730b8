"""The map of an attached table: which SQL expression over its columns gives each field of a posting.

It is given as options, `--map title=headline`, or as a TOML file:

    where  = "published"                  # optional: rows for which this is not true are no postings
    closed = "NOT active"                 # optional: true, or a time: the posting is closed
    key    = ["id"]                       # optional: columns that name a row; the primary key unless given

    [posting]                             # one line a field; the values are SQL expressions over the table's columns
    title    = "headline"
    company  = "'Acme'"                   # a constant is a text in SQL's own quotes
    url      = "'https://acme.example/jobs/' || slug"
    location = "city || ', ' || country"
    tags     = "string_to_array(skills, ',')"
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from feed.errors import ConfigurationError
from feed.model.attachment import FIELDS, REQUIRED
from feed.model.table import Column, TableShape

_SET_HERE = {
    "closed_at": "is not mapped: --closed says when a posting is closed",
    "source": "is the same for all rows: --source names it",
    "external_id": "is made of the table's key: --key names its columns",
    "id": "is given by feed and cannot be mapped",
    "version": "is given by feed and cannot be mapped",
    "updated_at": "is given by feed and cannot be mapped",
}
_OPTION = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*=(.*)", re.DOTALL)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_MOVING = re.compile(
    r"\b(?:now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|random|gen_random_uuid|nextval)\s*\(|"
    r"\b(?:current_timestamp|current_date|current_time|localtimestamp|localtime|current_user|session_user|current_role)\b",
    re.IGNORECASE,
)


class MapError(ConfigurationError):
    """The map of an attached table asks for something that cannot be; the text names the field or the option."""


@dataclass(frozen=True, slots=True)
class AttachMap:
    """What was given of a map: all of it, or only what is to change."""

    fields: dict[str, str] = field(default_factory=dict)
    """Expressions by the posting's field, in the order of FIELDS."""
    where: str | None = None
    closed: str | None = None
    key: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, given: Sequence[str], where: str | None = None, closed: str | None = None, key: str | None = None
    ) -> Self:
        """Return the map of the command line's options.

        Each of `given` is `field=expression` or the name of a TOML file; what comes later wins, and so do the options
        over the file. Raises MapError.
        """
        fields: dict[str, str] = {}
        for one in given:
            option = _OPTION.fullmatch(one)
            if option is not None:
                fields |= {_field(option[1], "--map"): _expression(f"--map {option[1]}", option[2])}
            elif one.lstrip().startswith("="):
                raise MapError(f"--map {one!r} names no field; write --map title=headline")
            else:
                file = cls.load(Path(one))
                fields |= file.fields
                where, closed = where or file.where, closed or file.closed
                key = key or ",".join(file.key) or None
        return cls(
            {name: fields[name] for name in FIELDS if name in fields},
            None if where is None else _expression("--where", where),
            None if closed is None else _expression("--closed", closed),
            () if key is None else _names(key),
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the map in the file at `path`; raises MapError."""
        try:
            return cls.parse(path.read_text("utf-8"), name=path.name)
        except (OSError, UnicodeDecodeError) as error:
            raise MapError(
                f"the map {path} cannot be read: {error}. (A single field is given as --map title=headline.)"
            ) from error

    @classmethod
    def parse(cls, text: str, name: str = "map") -> Self:
        """Read a map from its TOML `text`; raises MapError, which calls the file `name`."""
        try:
            tables: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise MapError(f"{name}: {error}") from error
        for one in tables:
            if one not in ("where", "closed", "key", "posting"):
                hint = f"; did you mean posting.{one}?" if one in FIELDS else "; use where, closed, key or [posting]"
                raise MapError(f"{name}: {one} is unknown{hint}")
        posting, key = tables.get("posting", {}), tables.get("key", [])
        if not isinstance(posting, dict):
            raise MapError(f"{name}: posting must be a table")
        if not isinstance(key, list) or not all(isinstance(one, str) for one in key):
            raise MapError(f'{name}: key must be a list of names of columns, such as ["id"]')
        fields = {
            _field(one, f"{name}: posting"): _expression(f"{name}: posting.{one}", value)
            for one, value in posting.items()
        }
        return cls(
            {one: fields[one] for one in FIELDS if one in fields},
            _expression(f"{name}: where", tables["where"]) if "where" in tables else None,
            _expression(f"{name}: closed", tables["closed"]) if "closed" in tables else None,
            tuple(key),
        )


def check_complete(fields: dict[str, str], shape: TableShape) -> None:
    """Raise MapError where a field is missing that every posting needs, or has to come with another one."""
    missing = [name for name in REQUIRED if name not in fields]
    if missing:
        raise MapError(
            f"the map lacks {' and '.join(missing)}, which every posting needs. Give an SQL expression over the columns, or "
            f"a constant: {' '.join(example(name) for name in missing)}. {listed(shape)}"
        )
    if ("latitude" in fields) != ("longitude" in fields):
        raise MapError("latitude and longitude must be mapped together, or neither of them")


def example(name: str) -> str:
    """Return an option of the command line that fills a required field with something to be replaced."""
    constants = {"company": "'YOUR COMPANY'", "url": "'https://YOUR.SITE/jobs/' || id", "title": "COLUMN"}
    return f'--map "{name}={constants.get(name, "EXPRESSION")}"'


def key_of(shape: TableShape, given: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that name a row: those that were given, else the primary key or another unique one.

    Raises MapError where there is none, or where those that were given are no such key.
    """
    candidates = ", ".join(",".join(key.columns) for key in shape.keys)
    if given:
        unknown = [name for name in given if shape.column(name) is None]
        if unknown:
            raise MapError(f"--key: {shape.name} has no column {unknown[0]}.{_near(unknown[0], shape)} {listed(shape)}")
        if not any(set(key.columns) == set(given) for key in shape.keys):
            can = f"; these can: {candidates}" if candidates else ""
            raise MapError(
                f"--key {','.join(given)} cannot name the rows of {shape.name}: there is no unique index over just these "
                f"columns, all of them NOT NULL{can}. {_unique(shape, given)}"
            )
        return tuple(given)
    if shape.keys:
        return shape.keys[0].columns
    raise MapError(
        f"{shape.name} has no primary key, and no unique index over columns that are NOT NULL, so its rows have no names. "
        f"{_unique(shape, ('<column>',))}"
    )


def refuse_moving(option: str, expression: str) -> None:
    """Raise MapError for an expression whose value changes although the row does not: no write would make an event."""
    found = _MOVING.search(_QUOTED.sub("''", expression))
    if found is not None:
        raise MapError(
            f"{option}: {expression!r} changes without a write to the row ({found[0].rstrip('( ')}), which nobody would "
            "notice. For a posting that ends at a time, map valid_through to that time: feed closes it then."
        )


def listed(shape: TableShape) -> str:
    """Return the table's columns with their types, for an error."""
    return f"Columns of {shape.name}: {', '.join(f'{one.quoted} {_short(one)}' for one in shape.columns)}."


def _short(column: Column) -> str:
    names = {"timestamp with time zone": "timestamptz", "timestamp without time zone": "timestamp"}
    return names.get(column.type, column.type.replace("character varying", "varchar"))


def _near(name: str, shape: TableShape) -> str:
    near = get_close_matches(name, [column.name for column in shape.columns], 1)
    return f" Did you mean {near[0]}?" if near else ""


def _unique(shape: TableShape, names: Sequence[str]) -> str:
    """Return what the table's owner can do about a missing key."""
    columns = [found.quoted if (found := shape.column(name)) else name for name in names]
    nulls = ", ".join(f"ALTER COLUMN {column} SET NOT NULL" for column in columns)
    return (
        f"Its owner can make one: ALTER TABLE {shape.name} {nulls}; "
        f"CREATE UNIQUE INDEX ON {shape.name} ({', '.join(columns)});"
    )


def _field(name: str, place: str) -> str:
    if name in FIELDS:
        return name
    if name in _SET_HERE:
        raise MapError(f"{place}: {name} {_SET_HERE[name]}")
    near = get_close_matches(name.lower(), FIELDS, 1)
    hint = f"did you mean {near[0]}?" if near else f"the fields of a posting are: {', '.join(FIELDS)}"
    raise MapError(f"{place}: {name} is no field of a posting; {hint}")


def _expression(place: str, value: object) -> str:
    if not isinstance(value, str):
        raise MapError(f"{place}: must be an SQL expression in quotes (a constant: \"'Acme'\")")
    if not value.strip():
        raise MapError(f"{place}: is empty; give a column or an SQL expression")
    if "\x00" in value:
        raise MapError(f"{place}: contains a NUL character")
    return value.strip()


def _names(text: str) -> tuple[str, ...]:
    """Return the columns of --key, which are joined by commas and may be quoted as in SQL."""
    names = re.findall(r'\s*("(?:[^"]|"")+"|[^",]+)\s*(?:,|$)', text)
    plain = [one.strip() for one in names]
    found = tuple(one[1:-1].replace('""', '"') if one.startswith('"') else one for one in plain if one)
    if not found:
        raise MapError("--key: names no column; write --key id or --key tenant,id")
    return found
