"""Filters by example: what finds what, and what a subscriber is told of a change."""

from typing import Any

import pytest

from feed.model.event import Kind
from feed.model.filter import EVERYTHING, Filter, Near, Terms, distance_km
from feed.model.posting import FIELDS, FILTERED
from feed.model.query import FilterQuery


def job(**fields: Any) -> dict[str, Any]:
    """A posting as the log holds it."""
    return dict.fromkeys(FIELDS) | {"id": 1, "title": "Baker", "company": "Acme", "tags": []} | fields


def finds(asked: dict[str, Any], **fields: Any) -> bool:
    return FilterQuery.model_validate(asked).canonical().matches(Terms(job(**fields)))


@pytest.mark.parametrize(
    ("asked", "location", "found"),
    [
        ("berlin", "Berlin, Germany", True), ("germany", "Berlin, Germany", True),
        ("Berlin Germany", "Berlin, Germany", True),
        ("BERLIN,GERMANY", "berlin/germany", True), ("lin", "Berlin, Germany", False),
        ("berlin", "Berliner Straße", False),
        ("berlin", "Ostberlin", False), ("germany berlin", "Berlin, Germany", False), ("munchen", "München", True),
        ("MÜNCHEN", "Mu\u0308nchen", True), ("istanbul", "İSTANBUL", True), ("strasse", "Straße 1", True),
        ("new york", "New York/San Francisco", True), ("york san", "New York/San Francisco", True),
        ("berlin", None, False),
        ("berlin", "", False), ("東京", "東京, Japan", True),
    ],
)  # fmt: skip
def test_a_location_finds_whole_words_in_their_order(asked: str, location: str | None, found: bool) -> None:
    assert finds({"location": [asked]}, location=location) is found


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("bak", True), ("BAKER", True), ("aker", False), ("acme baker", True), ("bak germ rye", True),
        ("bak butcher", False),
        ("berlin,germany", True), ("night-sh", True), ("c++", True), ("c#", False), ("é", False), ("baker'z", False),
    ],
)  # fmt: skip
def test_q_finds_beginnings_of_every_word_in_any_field(asked: str, found: bool) -> None:
    assert finds({"q": asked}, location="Berlin, Germany", tags=["Rye", "night shift", "C++"]) is found


def test_q_does_not_look_into_what_is_not_text_to_it() -> None:
    assert not finds({"q": "remote"}, workplace="remote", country="remote", seniority="remote")


@pytest.mark.parametrize(
    ("asked", "fields", "found"),
    [
        ({"company": ["ACMÉ"]}, {}, True), ({"company": ["acm"]}, {}, False), ({"company": ["x", "acme"]}, {}, True),
        ({"tag": ["RUST"]}, {"tags": ["go", "Rust"]}, True), ({"tag": ["rust"]}, {"tags": []}, False),
        ({"country": ["de"]}, {"country": "DE"}, True), ({"country": ["de"]}, {"country": None}, False),
        ({"workplace": ["remote", "hybrid"]}, {"workplace": "hybrid"}, True),
        ({"workplace": ["remote"], "company": ["acme"]}, {"workplace": "onsite"}, False),
        ({"currency": ["eur"]}, {"currency": "EUR"}, True), ({"currency": ["eur"]}, {"currency": None}, False),
    ],
)  # fmt: skip
def test_values_compare_whole_or_within_a_name_and_between_names(
    asked: dict[str, Any], fields: dict[str, Any], found: bool
) -> None:
    assert finds(asked, **fields) is found


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"salary_max": 60000}, True), ({"salary_max": 59999.99}, False), ({"salary_min": 60000}, True),
        ({"salary_min": 10, "salary_max": 60000}, True), ({"salary_min": 60000, "salary_max": 60000}, True),
        ({"salary_max": 5000, "salary_period": "month"}, True),
        ({"salary_max": 4999.99, "salary_period": "month"}, False),
        ({"salary_max": 1153.85, "salary_period": "week"}, True),
        ({"salary_max": 1153.84, "salary_period": "week"}, False),
        ({"salary_max": 230.77, "salary_period": "day"}, True),
        ({"salary_max": 230.76, "salary_period": "day"}, False),
        ({"salary_max": 28.85, "salary_period": "hour"}, True),
        ({"salary_max": 28.84, "salary_period": "hour"}, False),
        ({"salary_max": 60000, "salary_period": "year"}, True), ({}, False),
        ({"salary_max": 60000, "currency": "USD"}, False),
        ({"salary_max": 60000, "currency": None}, False),
    ],
)  # fmt: skip
def test_a_salary_is_its_upper_bound_a_year_in_its_currency(fields: dict[str, Any], found: bool) -> None:
    assert finds({"salary_min": 60000, "currency": ["EUR"]}, **{"currency": "EUR"} | fields) is found


def test_near_is_by_great_circle_and_includes_its_edge() -> None:
    berlin, potsdam = (52.52, 13.405), (52.3906, 13.0645)
    away = distance_km(*berlin, *potsdam)
    assert away == pytest.approx(27.2, abs=0.2)
    there = Terms(job(latitude=potsdam[0], longitude=potsdam[1]))
    assert Filter(near=Near(*berlin, away)).matches(there)
    assert not Filter(near=Near(*berlin, away - 1e-9)).matches(there)
    assert not Filter(near=Near(*berlin, 20_040)).matches(Terms(job()))
    assert distance_km(0, 179.9, 0, -179.9) == pytest.approx(22.24, abs=0.01)
    assert distance_km(90, 0, 90, 120) == pytest.approx(0, abs=1e-6)
    assert distance_km(0, 0, 0, 180) == pytest.approx(20_015.1, abs=0.1)


def event(kind: Kind, now: dict[str, Any], before: dict[str, Any] | None = None) -> tuple[Kind, Terms, Terms]:
    """An event and both its terms, as the hub makes them."""
    whole = job(**now)
    was = None if before is None else {name: job(**before)[name] for name in FILTERED}
    terms = Terms(whole)
    return kind, terms, terms if was is None else Terms(was)


BERLIN = Filter(location=(" berlin ",))
IN, OUT = {"location": "Berlin"}, {"location": "Bonn"}


@pytest.mark.parametrize(
    ("kind", "now", "before", "told"),
    [
        (Kind.POSTED, IN, None, Kind.POSTED), (Kind.POSTED, OUT, None, None),
        (Kind.UPDATED, IN, None, Kind.UPDATED), (Kind.UPDATED, OUT, None, None),
        (Kind.UPDATED, IN, OUT, Kind.UPDATED),  # it came in
        (Kind.UPDATED, OUT, IN, Kind.CLOSED),  # it left
        (Kind.UPDATED, OUT, {"location": "Köln"}, None),
        (Kind.CLOSED, IN, None, Kind.CLOSED), (Kind.CLOSED, OUT, None, None), (Kind.CLOSED, OUT, IN, Kind.CLOSED),
        (Kind.POSTED, OUT, IN, None),  # reopened elsewhere: the subscriber was told when it closed
    ],
)  # fmt: skip
def test_what_a_subscriber_is_told_depends_on_what_it_saw_before(
    kind: Kind, now: dict[str, Any], before: dict[str, Any] | None, told: Kind | None
) -> None:
    assert BERLIN.kind_of(*event(kind, now, before)) is told


def test_a_filter_of_kinds_looks_at_what_would_be_told() -> None:
    closed = Filter(location=(" berlin ",), event=(Kind.CLOSED,))
    assert closed.kind_of(*event(Kind.UPDATED, OUT, IN)) is Kind.CLOSED
    assert closed.kind_of(*event(Kind.UPDATED, IN, OUT)) is None
    updated = Filter(location=(" berlin ",), event=(Kind.UPDATED,))
    assert updated.kind_of(*event(Kind.UPDATED, OUT, IN)) is None
    assert Filter(event=(Kind.POSTED,)).kind_of(*event(Kind.POSTED, IN)) is Kind.POSTED


def test_the_empty_filter_passes_everything_as_it_is() -> None:
    for kind in Kind:
        assert EVERYTHING.kind_of(*event(kind, OUT, IN)) is kind
    assert EVERYTHING.equalities() is None
    assert Filter(workplace=("remote",), tag=("a", "b")).equalities() == ("tag", ("a", "b"))
