"""Which postings a list closes: none at once, and none by a list that cannot be believed.

A board's list is the whole truth only if it is complete. Even then it may be cut short by a fault of the board, and the same
address may one day be another company's. So a posting closes when two complete lists in a row were without it, and lists
that look wrong are suspect: they close nothing until they look right again or a person accepts them.
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from feed.database.source_runs import Known
from feed.model.source import Source

KEPT_COUNTS = 5
"""Counts of complete lists of which the median is taken."""
LEAST = 0.7
"""The part of that median below which a list is suspect."""
EMPTY_RUNS = 3
"""Empty lists in a row after which an empty list is believed, if they span EMPTY_TIME."""
EMPTY_TIME = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a list says of who is on the board."""

    ids: Set[str]
    """The external ids of all postings in it, also of those that could not be read."""
    complete: bool
    """Whether what is not in it is not on the board."""
    rolling: bool
    """Whether it only ever holds the newest postings."""
    company: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a list. The postings are named by their external ids."""

    suspect: str | None
    """Why the list is not believed; None: it is."""
    foreign: bool
    """Whether the list seems to be another company's, so that nothing of it is written."""
    used_acceptance: bool
    close: tuple[str, ...]
    absent: tuple[str, ...]
    """Not in the list, for the first time."""
    doubted: tuple[str, ...]
    """Not in the list, which is suspect."""
    back: tuple[str, ...]
    """In the list again."""
    counts: tuple[int, ...]
    company: str | None
    empty_runs: int
    empty_at: datetime | None


def judge(source: Source, known: Mapping[str, Known], seen: Sighting) -> Verdict:
    """Return what a list means for the postings of its source that are open as far as we know."""
    missing = [one for one in known if one not in seen.ids]
    present = [one for one, state in known.items() if state.missed and one in seen.ids]
    decides = seen.complete or seen.rolling
    accepted = source.accepted and decides
    foreign = _is_other(source.company, seen.company) and not accepted
    empty_runs, empty_at = _empty(source, known, seen)
    suspect = None
    if foreign:
        suspect = f"the board says that it is {seen.company!r}, and it was {source.company!r}"
    elif seen.complete and not seen.rolling and not accepted:
        suspect = _too_few(source, seen, empty_runs, empty_at)
    close: list[str] = []
    absent: list[str] = []
    doubted: list[str] = []
    counts = source.counts
    if suspect is not None:
        doubted = [one for one in missing if known[one].missed == 0]
    elif seen.rolling:
        absent = [one for one in missing if known[one].missed == 0]
    elif seen.complete:
        # What a person accepted was in doubt before, so this is the second list without it.
        sure = (1, -1) if accepted or empty_runs else (1,)
        close = [one for one in missing if known[one].missed in sure]
        absent = [one for one in missing if known[one].missed not in sure]
        counts = (len(seen.ids),) if accepted or empty_runs else (*counts, len(seen.ids))[-KEPT_COUNTS:]
        empty_runs, empty_at = 0, None
    return Verdict(
        suspect=suspect,
        foreign=foreign,
        used_acceptance=accepted,
        close=tuple(close),
        absent=tuple(absent),
        doubted=tuple(doubted),
        back=() if foreign else tuple(present),
        counts=counts,
        company=source.company if foreign or not seen.company else seen.company,
        empty_runs=empty_runs,
        empty_at=empty_at,
    )


def _empty(source: Source, known: Mapping[str, Known], seen: Sighting) -> tuple[int, datetime | None]:
    """Return how many empty lists in a row there have been after a full one, with this one, and when the first came."""
    if not seen.complete or seen.rolling:
        return source.empty_runs, source.empty_at
    if seen.ids or not (known or any(source.counts)):
        return 0, None
    return source.empty_runs + 1, source.empty_at or seen.at


def _too_few(source: Source, seen: Sighting, empty_runs: int, empty_at: datetime | None) -> str | None:
    usual = median(source.counts) if source.counts else 0
    if empty_runs:
        if empty_runs >= EMPTY_RUNS and empty_at is not None and seen.at - empty_at >= EMPTY_TIME:
            return None
        return f"the list is empty, and it held {usual:g} (seen {empty_runs} times; believed after {EMPTY_RUNS} over a day)"
    if len(seen.ids) < LEAST * usual:
        return f"the list holds {len(seen.ids)}, which is under {LEAST:.0%} of the usual {usual:g}"
    return None


def _is_other(before: str | None, now: str | None) -> bool:
    if not before or not now:
        return False
    return " ".join(before.casefold().split()) != " ".join(now.casefold().split())
