"""Times, salaries, places and words of sources mean what they say, and nothing where that is not clear."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from feed.ingest.places import address, country, country_in, joined, only, split
from feed.ingest.salary import Pay, labelled, salary
from feed.ingest.times import end_of, milliseconds, time_of
from feed.ingest.vocabulary import employment_type, seniority, workplace, workplace_of


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-10-30T08:00:00Z", datetime(2026, 10, 30, 8, tzinfo=UTC)),
        ("2026-10-30T08:00:00.123456789+01:00", datetime(2026, 10, 30, 8, tzinfo=timezone(timedelta(hours=1)))),
        ("2026-10-30 08:00:00 UTC", datetime(2026, 10, 30, 8, tzinfo=UTC)),
        ("2026-10-30T08:00-0430", datetime(2026, 10, 30, 8, tzinfo=timezone(-timedelta(hours=4, minutes=30)))),
        ("2026-10-30", datetime(2026, 10, 30, tzinfo=UTC)),
        ("2026-10-30T24:00:00Z", None), ("2026-02-30", None), ("30.10.2026", None), ("2026-W44-5", None), ("", None),
        ("0001-01-01T00:00:00+23:59", None), ("9999-12-31T23:59:59-23:59", None), ("1969-12-31", None), (20261030, None),
        ("٢٠٢٦-10-30", None), (None, None), (True, None),
    ],
)  # fmt: skip
def test_a_time_is_rfc_3339_or_near_to_it(text: object, time: datetime | None) -> None:
    assert time_of(text) == time


def test_a_date_ends_with_its_last_second() -> None:
    assert end_of("2026-10-30") == datetime(2026, 10, 30, 23, 59, 59, tzinfo=UTC)
    assert end_of("2026-10-30T08:00:00Z") == datetime(2026, 10, 30, 8, tzinfo=UTC)
    assert end_of("soon") is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**30, -1, True, "1793347200000", None])
def test_milliseconds_that_are_no_time_are_left_out(value: object) -> None:
    assert milliseconds(value) is None


def pay(low: Any, high: Any, currency: Any = "EUR", period: Any = "year") -> dict[str, Any]:
    return salary([Pay(low, high, currency, period)])


def test_a_salary_is_told_by_its_amounts_currency_and_period() -> None:
    assert pay(50000, "60000.005") == {
        "salary_min": Decimal(50000), "salary_max": Decimal("60000.01"), "currency": "EUR", "salary_period": "year",
    }  # fmt: skip
    assert pay(20, None, "eur", "per-hour-wage")["salary_period"] == "hour"
    assert pay(20, None, "EUR", "bi-weekly")["salary_period"] is None


@pytest.mark.parametrize(
    ("low", "high", "currency"),
    [(0, 0, "EUR"),
     (None, None, "EUR"), (2, 1, "EUR"), (1, 2, "EURO"), (1, 2, None), (-1, None, "EUR"), ("NaN", None, "EUR"),
     (True, False, "EUR"), ([1], {}, "EUR"), (10**13, None, "EUR"), ("1,000", None, "EUR"), (0.001, None, "EUR")],
)  # fmt: skip
def test_a_salary_that_cannot_be_is_left_out(low: object, high: object, currency: object) -> None:
    assert pay(low, high, currency) == {}


def test_ranges_of_one_unit_become_one_and_others_are_left_out() -> None:
    found = salary(
        [Pay(3, 5, "EUR", "hour"), Pay(1, 2, "EUR", "day"), Pay(2, 4, "EUR", "hour"), Pay(9, 9, "USD", "hour")]
    )
    assert (found["salary_min"], found["salary_max"], found["currency"]) == (2, 5, "EUR")
    assert salary([Pay(9, None, "EUR"), Pay(None, 3, "EUR")])["salary_max"] is None


@pytest.mark.parametrize(
    ("text", "low", "high", "currency", "period"),
    [
        ("USD 70,000 - 90,000 per year", 70000, 90000, "USD", "year"),
        ("€70k–€90k", 70000, 90000, "EUR", None),
        ("£50-60k", 50000, 60000, "GBP", None),
        ("EUR 4000 to 5000 monthly", 4000, 5000, "EUR", "month"),
        ("US$45.50 / hour", 45, None, "USD", "hour"),
        ("CHF 100,000", 100000, None, "CHF", None),
    ],
)
def test_a_labelled_salary_of_the_one_form_is_read(
    text: str, low: int, high: int | None, currency: str, period: str | None
) -> None:
    found = labelled(text)
    assert (int(found["salary_min"]), found["salary_max"], found["currency"]) == (low, high, currency)
    assert found["salary_period"] == period


@pytest.mark.parametrize(
    "text",
    ["$70k - $90k", "competitive", "up to EUR 90,000", "EUR 70,000 - USD 90,000", "EUR 70,000 a fortnight",
     "We pay EUR 70,000 per year", "EUR 1,00", "EUR", "", None, 70000, "EUR 1" + "0" * 200],
)  # fmt: skip
def test_prose_is_no_salary(text: object) -> None:
    assert labelled(text) == {}


@pytest.mark.parametrize(
    ("given", "name"),
    [("DE", "Germany"), ("de", "Germany"), ("USA", "United States"), ("UK", "United Kingdom"), ("Deutschland", "Germany"),
     ("france", "France"), ("Atlantis", "Atlantis"), ("XX", "XX"), (None, None)],
)  # fmt: skip
def test_a_country_has_its_english_name(given: str | None, name: str | None) -> None:
    assert country(given) == name


@pytest.mark.parametrize(
    ("place", "found"),
    [("Berlin, Germany", "Germany"), ("Germany", "Germany"), ("Berlin, Germany; Munich, Germany", "Germany"),
     ("Berlin, Germany or Paris, France", None), ("Atlanta, Georgia", None), ("San Francisco, CA", None),
     ("Berlin", None), ("", None), (None, None)],
)  # fmt: skip
def test_a_place_tells_its_country_only_by_name_and_at_its_end(place: str | None, found: str | None) -> None:
    assert country_in(place) == found


def test_places_are_split_and_joined() -> None:
    assert split("Berlin | Munich; Köln or Portland, OR / Wien") == ["Berlin", "Munich", "Köln", "Portland, OR", "Wien"]
    assert joined(["Berlin", None, "Köln", "Berlin"]) == "Berlin; Köln"
    assert address("Leeds", None, "United Kingdom") == "Leeds, United Kingdom"
    assert (only(["Germany", None]), only(["Germany", "France"]), only([])) == ("Germany", None, None)


def test_words_for_work_become_ours() -> None:
    assert [employment_type(one) for one in ("Full Time", "PART_TIME", "Intern", "fulltime_fixed_term", "FullTime")] == [
        "full-time", "part-time", "internship", "contract", "full-time",
    ]  # fmt: skip
    assert (employment_type("Minijob"), employment_type("OTHER"), employment_type(None)) == ("Minijob", None, None)
    assert [workplace(one) for one in ("On-Site", "HYBRID", "Remote", "unspecified", None)] == [
        "onsite", "hybrid", "remote", None, None,
    ]  # fmt: skip
    assert (workplace_of(["Remote - US", "remote"]), workplace_of(["Remote", "Berlin"]), workplace_of([])) == (
        "remote", None, None,
    )  # fmt: skip
    assert (seniority("Entry Level"), seniority("Director"), seniority("Not Applicable")) == (
        "junior",
        "director",
        None,
    )
