"""An attachment: which table of somebody else's is read as postings, and how its columns become a posting's fields."""

from dataclasses import dataclass
from typing import Literal

OnError = Literal["skip", "abort"]
"""What becomes of a write to the attached table whose row cannot be captured: it succeeds and feed catches up later
(`skip`), or it fails (`abort`)."""

MONEY = ("salary_min", "salary_max")
COORDINATES = ("latitude", "longitude")
TIMES = ("posted_at", "valid_through")
LISTS = ("tags",)

FIELDS = (
    "title", "company", "url", "location", "country", "workplace", "employment_type", "seniority", "tags", "salary_min",
    "salary_max", "currency", "salary_period", "latitude", "longitude", "posted_at", "valid_through", "description",
    "description_html",
)  # fmt: skip
"""The fields of a posting that an attached table can fill; source, id and version are made by feed, and `closed_at` comes
from the spec's `closed`."""

REQUIRED = ("title", "company", "url")


@dataclass(frozen=True, slots=True)
class AttachmentSpec:
    """How one table becomes postings. Expressions are SQL over the table's columns, which they name without a prefix."""

    table: str
    """The table's name with its schema, quoted where it must be, as Postgres itself prints it: `public.vacancies`."""
    source: str
    """The `source` of its postings."""
    key: tuple[str, ...]
    """Names of the columns (not quoted) whose values name a row; all NOT NULL, and together under a unique index."""
    fields: dict[str, str]
    """Expressions by the posting's field, in the order of FIELDS. `typed` gives them the field's type."""
    where: str | None = None
    """A boolean expression: rows for which it is not true are no postings."""
    closed: str | None = None
    """When a row's posting is closed: a boolean expression, or (`closed_is_time`) the time since when it is."""
    closed_is_time: bool = False
    on_error: OnError = "skip"
    backfill: bool = True
    """Whether the rows that are there already become postings, or only those that are written from now on."""


def typed(field: str, expression: str) -> str:
    """Return `expression` cast to the type that feed's own table has for `field`.

    The expression stands on lines of its own, so that a comment at its end takes nothing with it.
    """
    inner = f"(\n{expression}\n)"
    if field in MONEY:
        return f"round({inner}::numeric, 2)"
    if field in COORDINATES:
        return f"{inner}::double precision"
    if field in TIMES:
        return f"{inner}::timestamptz"
    return f"{inner}::text[]" if field in LISTS else f"{inner}::text"
