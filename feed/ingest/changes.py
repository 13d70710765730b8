"""What a list changes: its postings compared with what is remembered, and packed for the job store."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from feed.database.jobs import Batch
from feed.database.source_runs import Known
from feed.errors import Fault
from feed.ingest.adapter import Found
from feed.model.posting import PostingIn
from feed.model.source import BadRow
from feed.model.source_run import Remembered

CHUNK = 250
"""Postings that one transaction writes at the most."""
CHUNK_BYTES = 4 * 1024 * 1024
"""Bytes of JSON from which on a transaction takes no further posting."""
_KEPT_BAD = 20
"""Postings that could not be read whose faults are kept."""
_KEPT_FAULTS = 5
"""Faults that are kept of each."""
_LONGEST = 300
"""Characters of a fault that are kept."""


@dataclass(frozen=True, slots=True)
class Change:
    """One posting that is to be written."""

    remembered: Remembered
    json: bytes
    is_new: bool
    """Whether it was not open as far as we know."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What a list changes, without what it closes."""

    changes: tuple[Change, ...]
    ids: frozenset[str]
    """The external ids of all postings in the list, also of the bad ones."""
    bad: int
    faults: tuple[BadRow, ...]
    """Of the first bad ones."""
    anonymous: bool
    """Whether a bad posting did not even tell its id, so that nobody knows which one it is."""


def compare(source: str, found: Found, known: Mapping[str, Known], now: datetime) -> Changes:
    """Return what is new in a list or differs from what is remembered. Takes some 30 us for each posting."""
    changes: list[Change] = []
    ids: set[str] = set()
    bad = [BadRow(one.external_id, tuple(one.faults)) for one in found.bad]
    for posting in found.postings:
        external_id = posting.external_id
        if external_id is None or external_id in ids:
            message = "is missing" if external_id is None else "occurs twice in the list; the first one counts"
            bad.append(BadRow(external_id, (Fault("external_id", message),)))
            continue
        ids.add(external_id)
        change = _change(source, external_id, posting, known.get(external_id), now)
        if change is not None:
            changes.append(change)
    ids.update(row.external_id for row in bad if row.external_id is not None)
    anonymous = any(row.external_id is None for row in bad)
    return Changes(tuple(changes), frozenset(ids), len(bad), bounded(bad), anonymous)


def chunks(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Yield the changes in parts that one transaction each writes."""
    chunk: list[Change] = []
    size = 0
    for change in changes:
        if chunk and (len(chunk) >= CHUNK or size + len(change.json) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(change)
        size += len(change.json)
    if chunk:
        yield chunk


def packed(changes: Sequence[Change]) -> Batch:
    """Return changes as the job store takes them."""
    return Batch(len(changes), (b"[" + b",".join(change.json for change in changes) + b"]").decode())


def bounded(rows: Sequence[BadRow]) -> tuple[BadRow, ...]:
    """Return the first bad postings with their first faults, cut to what is kept."""
    return tuple(
        BadRow(
            row.external_id and row.external_id[:_LONGEST],
            tuple(Fault(fault.field[:_LONGEST], fault.message[:_LONGEST]) for fault in row.faults[:_KEPT_FAULTS]),
        )
        for row in rows[:_KEPT_BAD]
    )


def _change(source: str, external_id: str, posting: PostingIn, known: Known | None, now: datetime) -> Change | None:
    """Return how a posting is to be written; None where it is as it was, or was over before we first saw it."""
    row: dict[str, Any] = posting.row() | {"source": source}
    digest = hashlib.sha256(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)).digest()[:16]
    ends = posting.valid_through
    over = ends is not None and ends <= now
    if known is None:
        if over:
            return None
        reopens = True  # where it is in the database, it was closed when it left the list
    elif known.digest == digest:
        return None
    else:
        reopens = known.expires_at is not None and known.expires_at <= now and not over
    if reopens and not row["closed_given"]:
        row |= {"closed_at": None, "closed_given": True}
    return Change(Remembered(external_id, digest, ends), orjson.dumps(row), known is None)
