"""A preview: one fetch of a source that writes nothing, and what a run would make of it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from feed.database.source_runs import Known
from feed.ingest.adapter import Adapter, Found
from feed.ingest.changes import compare
from feed.ingest.closing import Sighting, Verdict, judge
from feed.ingest.fetcher import Fetcher
from feed.ingest.run_fetch import RunFetch
from feed.model.source import BadRow, Source


@dataclass(frozen=True, slots=True)
class Preview:
    """What a source holds now, and what a run would do with it."""

    source: Source
    url: str
    """What was fetched."""
    found: Found
    rolling: bool
    """Whether the board only lists its newest postings."""
    complete: bool
    """Whether what is not in the list is not on the board."""
    posted: int
    updated: int
    missing: int
    """Postings that are open as far as we know, and not in the list."""
    bad: int
    """Postings that could not be read."""
    faults: tuple[BadRow, ...]
    """The first of these."""
    verdict: Verdict


async def preview(source: Source, adapter: Adapter, fetcher: Fetcher, known: Mapping[str, Known]) -> Preview:
    """Fetch a source and return what a run would do; `known` are its postings that are open as far as we know.

    Raises FetchError and Malformed.
    """
    url = source.url or adapter.address(source.board)
    found = await adapter.read(source.board, url, RunFetch(fetcher, 0.0 if source.url else adapter.gap, None))
    now = datetime.now(UTC)
    changes = await asyncio.to_thread(compare, source.name, found, known, now)
    complete = found.complete and not changes.anonymous
    verdict = judge(source, known, Sighting(changes.ids, complete, adapter.rolling, found.company, now))
    written = () if verdict.foreign else changes.changes
    posted = sum(change.is_new for change in written)
    return Preview(
        source, url, found, adapter.rolling, complete, posted, len(written) - posted, len(known.keys() - changes.ids),
        changes.bad, changes.faults, verdict,
    )  # fmt: skip
