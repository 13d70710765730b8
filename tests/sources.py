"""Sources in every state, for tests of what shows them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from feed.errors import Fault
from feed.model.source import BadRow, Counts, Source

NOW = datetime(2026, 11, 21, 12, 1, 2, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    """The time so many seconds before NOW."""
    return NOW - timedelta(seconds=seconds)


ACME = Source(
    "greenhouse", "acme", "boards.example", company="Acme", open=1234, found=1234, added_at=ago(9_000),
    succeeded_at=ago(60), tried_at=ago(60), changed_at=ago(3_600), next_at=ago(-840),
    total=Counts(posted=1250, updated=40, closed=16), last_change=Counts(posted=12, updated=3, closed=4),
)  # fmt: skip
"""One that is well."""

SUSPECT = replace(ACME, adapter="lever", board="firm", suspect="100 postings, not 1,234.", suspect_at=ago(7_200))
FAILING = replace(ACME, adapter="ashby", board="down", error="boards.example answered 503\x1b[2J", failures=3)
NEW = Source(
    "remotive",
    "all",
    "remotive.example",
    attribution="Remotive, https://remotive.example",
    added_at=ago(1),
    next_at=ago(1),
)
PAUSED = replace(ACME, adapter="rss", board="still", paused_at=ago(5))
BAD = replace(ACME, board="bad", bad=2, faults=(BadRow("7", (Fault("title", "is required"),)),))
EVERY = [ACME, SUSPECT, FAILING, NEW, PAUSED, BAD]
