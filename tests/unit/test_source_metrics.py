"""The metrics of the sources: gauges of now, counters of what happened while the process leads, in a bounded number."""

import math
from dataclasses import replace
from typing import Any

import pytest

from feed.model.source import Counts
from feed.observability import source_metrics
from feed.observability.metrics import Metrics
from tests.sources import ACME, NOW, ago
from tests.unit.test_metrics import value


def of(metrics: Metrics, name: str, source: str = "greenhouse:acme", **labels: str) -> Any:
    """One series of a source."""
    return value(metrics, f"feed_source_{name}", source=source, **labels)


def test_gauges_say_how_each_source_is_and_how_many_are_in_each_state() -> None:
    metrics = Metrics("1")
    suspect = replace(ACME, board="b", suspect="few", next_at=ago(30))
    metrics.sources.update([ACME, suspect, replace(ACME, board="c", paused_at=ago(1), succeeded_at=None)], NOW)
    assert [of(metrics, name) for name in ("open_postings", "suspect", "success_age_seconds", "overdue_seconds")] == [
        1234, 0, 60, 0,
    ]  # fmt: skip
    assert [of(metrics, name, "greenhouse:b") for name in ("suspect", "overdue_seconds")] == [1, 30]
    assert [value(metrics, "feed_sources", state=state) for state in ("ok", "suspect", "paused", "new")] == [1, 1, 1, 0]
    for name in ("success_age_seconds", "overdue_seconds"):
        assert math.isnan(of(metrics, name, "greenhouse:c")), "a paused source must wake nobody"


def test_runs_are_counted_by_outcome_and_postings_by_what_was_done() -> None:
    metrics = Metrics("1")
    metrics.sources.update([ACME], NOW)
    steps = [
        {"total": Counts(posted=1253, updated=40, closed=17)},
        {},
        {"error": "503"},
        {"suspect": "few", "total": Counts(posted=1254, updated=40, closed=17)},
    ]
    one = ACME
    for number, changes in enumerate(steps):
        one = replace(one, tried_at=ago(50 - number), error=None, suspect=None)
        one = replace(one, **changes)  # type: ignore[arg-type]
        for _ in range(2):  # a second look at the same run
            metrics.sources.update([one], NOW)
    assert [of(metrics, "runs_total", outcome=outcome) for outcome in source_metrics.OUTCOMES] == [1, 1, 1, 1]
    assert [of(metrics, "postings_total", change=change) for change in ("posted", "updated", "closed")] == [4, 0, 1]


def test_the_first_run_of_a_source_that_was_added_meanwhile_counts() -> None:
    metrics = Metrics("1")
    metrics.sources.update([], NOW)
    metrics.sources.update([ACME], NOW)
    assert of(metrics, "postings_total", change="posted") == 1250
    assert of(metrics, "runs_total", outcome="changed") == 1


def test_a_process_that_leads_no_more_withdraws_its_gauges_and_counts_nothing_that_others_did() -> None:
    metrics = Metrics("1")
    metrics.sources.update([ACME], NOW)
    metrics.sources.forget()
    assert math.isnan(of(metrics, "open_postings"))
    assert math.isnan(value(metrics, "feed_sources", state="ok") or 0)
    metrics.sources.update([replace(ACME, total=Counts(posted=5000), tried_at=NOW)], NOW)
    assert of(metrics, "postings_total", change="posted") == of(metrics, "runs_total", outcome="changed") == 0
    assert of(metrics, "open_postings") == 1234


def test_a_source_that_was_removed_is_withdrawn() -> None:
    metrics = Metrics("1")
    metrics.sources.update([ACME], NOW)
    metrics.sources.update([], NOW)
    assert math.isnan(of(metrics, "open_postings"))
    assert value(metrics, "feed_sources", state="ok") == 0


def test_sources_beyond_the_bound_are_counted_together_and_have_no_gauges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_metrics, "SHOWN", 1)
    metrics = Metrics("1")
    many = [replace(ACME, board=letter) for letter in "abc"]
    metrics.sources.update(many, NOW)
    metrics.sources.update([replace(one, total=Counts(posted=1251)) for one in many], NOW)
    assert of(metrics, "open_postings", "greenhouse:a") == 1234
    assert of(metrics, "open_postings", "greenhouse:b") is None
    assert of(metrics, "postings_total", "greenhouse:a", change="posted") == 1
    assert of(metrics, "postings_total", "(others)", change="posted") == 2
    assert value(metrics, "feed_sources", state="ok") == 3
