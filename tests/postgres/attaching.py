"""Tables of somebody else's, and what the tests of attached ones do again and again."""

from typing import Any

from feed.database.attach import attach
from feed.database.comparison import Comparison, compare
from feed.database.table_shape import describe
from feed.model.attachment import AttachmentSpec
from feed.settings.log import LogSettings
from tests.postgres.events import Connection

VACANCIES = """
CREATE SCHEMA shop;
CREATE TABLE shop.vacancies (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), headline text, firm text DEFAULT 'Acme', link text DEFAULT 'https://a.example/1',
  city text, active boolean NOT NULL DEFAULT true, hits integer NOT NULL DEFAULT 0, skills text[], pay numeric)
"""
ONE = "00000000-0000-0000-0000-000000000001"
TWO = "00000000-0000-0000-0000-000000000002"
"""Keys of rows."""

FIELDS = {"title": "headline", "company": "firm", "url": "link", "location": "city || ', DE'"}


def spec(table: str = "shop.vacancies", **given: Any) -> AttachmentSpec:
    """A spec with the usual fields; those that are given go on top."""
    fields = FIELDS | given.pop("fields", {})
    return AttachmentSpec(
        **{"table": table, "source": table, "key": ("id",), "fields": fields, "closed": "NOT active"} | given
    )


async def attached(database: Connection, wanted: AttachmentSpec | None = None) -> int:
    """Attach a table that may have rows, and make those postings; returns the attachment's number."""
    wanted = spec() if wanted is None else wanted
    number = await attach(database, "feed", wanted, await describe(database, wanted.table))
    await compared(database, number)
    return number


async def compared(database: Connection, number: int) -> Comparison:
    """Compare a table with its postings to the end."""
    done = await compare(database, "feed", number, LogSettings())
    assert done is not None
    assert done.phase == "done"
    return done


async def postings(database: Connection, source: str = "shop.vacancies") -> dict[str, str]:
    """The titles of the open postings of a source, by external id."""
    rows = await database.fetch("SELECT external_id, title FROM job WHERE source = $1 AND closed_at IS NULL", source)
    return {row["external_id"]: row["title"] for row in rows}


def told(events: list) -> list[tuple[str, str | None, str]]:
    """Kind, reason and title of each event."""
    return [(str(event.kind), event.reason, event.job["title"]) for event in events]
