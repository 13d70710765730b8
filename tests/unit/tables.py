"""Tables of somebody else's, written down in one line a column."""

import re

from feed.model.table import Column, Key, TableShape

_CATEGORIES = {
    "bigint": "N", "integer": "N", "smallint": "N", "numeric": "N", "double precision": "N", "boolean": "B", "date": "D",
    "timestamp with time zone": "D", "timestamp without time zone": "D", "uuid": "U", "json": "U", "jsonb": "U",
}  # fmt: skip
_SHORT = {"timestamptz": "timestamp with time zone", "timestamp": "timestamp without time zone", "int": "integer"}


def table(text: str, key: str = "id", name: str = "public.vacancies") -> TableShape:
    """A table with a column a line: `name type`, `name type!` (NOT NULL), `name enum(a, b)`."""
    columns = tuple(_column(*line.strip().split(maxsplit=1)) for line in text.strip().splitlines())
    return TableShape(1, name, columns, (Key(tuple(key.split(",")), primary=True),) if key else ())


def _column(name: str, given: str) -> Column:
    kind = given.rstrip("!")
    kind = _SHORT.get(kind, kind)
    labels = tuple(re.findall(r"[\w ]+(?=[,)])", kind)) if kind.startswith("enum") else ()
    category = "E" if labels else "A" if kind.endswith("[]") else _CATEGORIES.get(re.sub(r"\(.*", "", kind), "S")
    quoted = name if re.fullmatch("[a-z_][a-z0-9_]*", name) else f'"{name}"'
    return Column(name, quoted, kind, category, given.endswith("!"), tuple(label.strip() for label in labels))
