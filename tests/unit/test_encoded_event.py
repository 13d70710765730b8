"""An encoded event: what it takes in memory, and that it answers without the posting that it was made from."""

import tracemalloc
from dataclasses import replace
from typing import Any

import orjson
import pytest

from feed.fanout.encoded_event import EncodedEvent
from feed.model.event import Event, Kind
from feed.model.filter import EVERYTHING, Filter
from feed.model.frame import data_of, document, event_frame
from tests.unit.events import EPOCH, event

NUMBER = 2_000
ACME = Filter(company=("acme",))


def updated(position: int, was: dict[str, Any] | None) -> Event:
    """A posting with every field that a filter reads."""
    return event(
        position, Kind.UPDATED, was, company=f"Company {position}", title=f"Senior Site Reliability Engineer {position}",
        location=f"Berlin {position}, Germany", country="Germany", workplace="hybrid", employment_type="full-time",
        seniority="senior", tags=["python", "postgres", f"own-{position}"], salary_min=70_000.0, salary_max=90_000.0,
        currency="EUR", salary_period="year", latitude=52.52 + position / 1e6, longitude=13.405 + position / 1e6,
    )  # fmt: skip


@pytest.mark.parametrize("was", [None, {"location": "Bonn"}])
def test_it_takes_no_more_memory_than_it_says_once_filters_have_looked_at_it(was: dict[str, Any] | None) -> None:
    held: list[EncodedEvent] = []
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for position in range(NUMBER):
            # The texts as they come from the log: every posting has its own.
            one = orjson.loads(orjson.dumps(updated(position, was)))
            held.append(EncodedEvent(EPOCH, Event(**one | {"kind": Kind.UPDATED})))
            held[-1].frame_for(ACME)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    said = sum(one.size for one in held)
    assert said / 2 < taken <= said


def test_the_frame_of_a_posting_that_left_a_filter_says_so_and_is_else_the_same() -> None:
    one = updated(7, {"company": "Acme"})
    left = EncodedEvent(EPOCH, one).frame_for(ACME)
    assert left == event_frame(EPOCH, one, Kind.CLOSED)
    assert data_of(left) == document(one, Kind.CLOSED)


def test_a_hidden_posting_is_named_and_not_described() -> None:
    one = updated(7, {"company": "Acme"})
    hidden = EncodedEvent(EPOCH, one).frame_for(EVERYTHING.narrowed(ACME))
    assert hidden is not None
    assert data_of(hidden) == {
        "id": 7, "version": 1, "updated_at": None, "closed_at": None, "href": "/v1/jobs/7", "reason": "left_filter",
    }  # fmt: skip


def test_only_a_posting_of_a_backfill_says_so_and_only_filters_that_want_it_get_it() -> None:
    news = event(1)
    posted, closed = replace(news, reason="backfill"), replace(news, kind=Kind.CLOSED, reason="backfill")
    assert "backfill" not in document(news, Kind.POSTED)
    assert document(posted, Kind.POSTED) == document(news, Kind.POSTED) | {"backfill": True}
    assert document(closed, Kind.CLOSED) == document(news, Kind.POSTED) | {"backfill": True, "reason": "closed"}
    without, acme = Filter(backfill=False), Filter(company=("acme",))
    for one in (posted, closed):
        encoded = EncodedEvent(EPOCH, one)
        assert encoded.frame_for(EVERYTHING) == encoded.frame_for(acme) == encoded.frame
        for wanted in (without, replace(acme, backfill=False), EVERYTHING.narrowed(without), acme.narrowed(without)):
            assert encoded.frame_for(wanted) is None
            assert EncodedEvent(EPOCH, news).frame_for(wanted) is not None


def test_an_unknown_salary_period_counts_as_a_year_and_stops_nobody() -> None:
    one = EncodedEvent(EPOCH, event(1, salary_max=50_000.0, salary_period="decade", currency="EUR"))
    assert one.frame_for(Filter(salary_min=50_000.0, currency=("EUR",))) == one.frame
    assert one.frame_for(Filter(salary_min=50_001.0, currency=("EUR",))) is None
