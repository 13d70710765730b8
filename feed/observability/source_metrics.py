"""The metrics of the sources: what the process that leads reads in the database about the boards that are fetched.

The number of series is bounded: the first SHOWN sources that a process sees have series of their own. What the others do is
counted under OTHERS, and they have no gauges.
"""

import math
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from feed.model.source import Counts, Source, State

SHOWN = 300
"""Sources with series of their own, in the life of a process."""
OTHERS = "(others)"
"""The label under which the runs of all other sources are counted; no source can have this name."""
OUTCOMES = ("changed", "unchanged", "suspect", "failed")
"""What a run comes to: postings changed, or none did; its list was not believed; it failed."""


class SourceMetrics:
    """The instruments of the sources, in the registry of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def latest(name: str, says: str, label: str) -> Gauge:
            return Gauge(name, says, (label,), registry=registry, multiprocess_mode="livemostrecent")

        def counter(name: str, says: str, label: str) -> Counter:
            return Counter(name, says, ("source", label), registry=registry)

        self._states = latest("feed_sources", "Sources that are fetched, by state.", "state")
        self._open = latest("feed_source_open_postings", "Open postings of a source.", "source")
        self._suspect = latest(
            "feed_source_suspect",
            "1 while the newest list of a source is not believed, and nothing is closed.",
            "source",
        )
        self._success_age = latest(
            "feed_source_success_age_seconds",
            "Since a run of a source last succeeded, or since it was added.",
            "source",
        )
        self._overdue = latest(
            "feed_source_overdue_seconds", "Since the next run of a source was due; 0 while it is not.", "source"
        )
        self._runs = counter("feed_source_runs", "Runs of a source, by outcome.", "outcome")
        self._postings = counter("feed_source_postings", "Postings of a source, by what a run did to them.", "change")
        self._shown: set[str] = set()
        self._seen: dict[str, Source] | None = None
        """The sources at the last look; None before the first one as the leader."""
        self._unknown()

    def update(self, found: Sequence[Source], at: datetime) -> None:
        """Set the gauges to what was found at the time `at`, and count what has happened since the last call.

        What happened before the first call was counted by the process that led then.
        """
        states = Tally(one.state for one in found)
        for state in get_args(State):
            self._states.labels(state).set(states[state])
        self._withdraw(self._shown - {one.name for one in found})
        for one in found:
            if one.name in self._shown or len(self._shown) < SHOWN:
                self._shown.add(one.name)
                self._show(one, at)
            self._count(one)
        self._seen = {one.name: one for one in found}

    def forget(self) -> None:
        """Withdraw the gauges: another process leads now, and knows better."""
        self._unknown()
        self._withdraw(self._shown)
        self._seen = None

    def _show(self, one: Source, at: datetime) -> None:
        def since(time: datetime | None) -> float:
            waits = one.paused_at is not None or time is None
            return math.nan if waits or time is None else max(0.0, (at - time).total_seconds())

        self._open.labels(one.name).set(one.open)
        self._suspect.labels(one.name).set(one.suspect is not None)
        self._success_age.labels(one.name).set(since(one.succeeded_at or one.added_at))
        self._overdue.labels(one.name).set(0.0 if one.running else since(one.next_at))

    def _count(self, one: Source) -> None:
        label = one.name if one.name in self._shown else OTHERS
        before = one if self._seen is None else self._seen.get(one.name)
        old, new = Counts() if before is None else before.total, one.total
        ran = one.tried_at is not None and (before is None or before.tried_at != one.tried_at)
        outcome = _outcome(one, changed=new != old)
        for name in OUTCOMES:
            self._runs.labels(label, name).inc(ran and name == outcome)
        for change in ("posted", "updated", "closed"):
            # A source that was removed and added again begins anew.
            self._postings.labels(label, change).inc(max(0, getattr(new, change) - getattr(old, change)))

    def _unknown(self) -> None:
        for state in get_args(State):
            self._states.labels(state).set(math.nan)

    def _withdraw(self, names: Iterable[str]) -> None:
        """Let series say that nothing is known: they cannot be removed where workers share them."""
        for name in names:
            for gauge in (self._open, self._suspect, self._success_age, self._overdue):
                gauge.labels(name).set(math.nan)


def _outcome(one: Source, *, changed: bool) -> str:
    if one.error is not None:
        return "failed"
    if one.suspect is not None:
        return "suspect"
    return "changed" if changed else "unchanged"
