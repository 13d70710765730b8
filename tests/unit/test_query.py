"""Query parameters: one canonical filter for one wish, and refusals that name the field."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import ValidationError

from feed.errors import Invalid
from feed.model.cursor import Cursor
from feed.model.event import Kind
from feed.model.filter import EVERYTHING, Near
from feed.model.query import FilterQuery, Start, StreamQuery, parse_filter, parse_since

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


def canonical(**asked: Any) -> Any:
    return FilterQuery.model_validate(asked).canonical()


def test_equal_wishes_are_equal_filters() -> None:
    assert canonical() == EVERYTHING
    one = canonical(
        company=["Acme", "ÉTÉ"], tag=["b", "A"], location=["Berlin, Germany"], q="go  RUST", currency=["eur", "USD"]
    )
    two = canonical(
        tag=["a", "B", "b"], company=["ete", "ACME"], location=["berlin germany"], q="rust, Go", currency=["usd", "EUR"]
    )
    assert one == two
    assert hash(one) == hash(two)
    assert one != canonical(company=["Acme"])


def test_a_wish_without_backfill_is_a_filter_and_is_carried_on() -> None:
    assert canonical(backfill="true") == EVERYTHING
    without = FilterQuery.model_validate({"backfill": "false", "tag": ["go"]})
    assert not without.canonical().backfill
    assert without.encoded() == "tag=go&backfill=false"
    assert parse_filter("backfill=false") == canonical(backfill=False) != EVERYTHING
    assert FilterQuery().encoded() == ""
    with pytest.raises(Invalid, match="backfill: must be true or false"):
        parse_filter("backfill=maybe")


def test_all_kinds_are_no_filter_of_kinds() -> None:
    assert canonical(event=["closed", "posted", "updated"]) == EVERYTHING
    assert canonical(event=["posted", "closed", "posted"]).event == (Kind.CLOSED, Kind.POSTED)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"location": ["--"]}, "location"), ({"location": ["berlin", " , "]}, "location"), ({"q": ""}, "q"),
        ({"q": "/ -"}, "q"),
        ({"salary_min": 1}, "salary_min"), ({"radius_km": 5}, "radius_km"), ({"near": "berlin"}, "near"),
        ({"near": "91,0"}, "near"), ({"near": "0,181"}, "near"), ({"near": "0"}, "near"), ({"near": "1,2,3"}, "near"),
        ({"near": "1e1,2"}, "near"), ({"near": "nan,0"}, "near"), ({"near": "٣,٣"}, "near"),
        ({"company": ["x"] * 101}, "company"), ({"location": ["x"] * 101}, "location"), ({"tag": ["x"] * 101}, "tag"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_name(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        canonical(**asked)
    assert [fault.field for fault in refused.value.faults] == [field]


def test_every_fault_is_named() -> None:
    with pytest.raises(Invalid) as refused:
        canonical(location=["-"], q="-", salary_min=1, radius_km=1)
    assert [fault.field for fault in refused.value.faults] == ["location", "q", "salary_min", "radius_km"]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"compny": ["x"]}, "compny"), ({"workplace": ["office"]}, "workplace"), ({"event": ["deleted"]}, "event"),
        ({"salary_min": -1}, "salary_min"), ({"salary_min": "inf"}, "salary_min"),
        ({"salary_min": "nan"}, "salary_min"),
        ({"currency": ["EURO"]}, "currency"), ({"currency": ["EU\n"]}, "currency"),
        ({"currency": ["EUR\n"]}, "currency"),
        ({"radius_km": 0, "near": "0,0"}, "radius_km"), ({"radius_km": 20_041, "near": "0,0"}, "radius_km"),
        ({"radius_km": "nan", "near": "0,0"}, "radius_km"), ({"company": [""]}, "company"),
        ({"company": ["x" * 201]}, "company"),
        ({"q": "x" * 501}, "q"), ({"near": "1" * 61}, "near"),
        ({"company": ["a\x00"]}, "company"), ({"location": ["\x00a"]}, "location"), ({"q": "a\x00b"}, "q"),
        ({"tag": ["\ud800"]}, "tag"), ({"q": "\udfff"}, "q"),
    ],
)  # fmt: skip
def test_what_has_the_wrong_shape_is_refused_by_name(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        FilterQuery.model_validate(asked)
    assert {error["loc"][0] for error in refused.value.errors()} == {field}


@pytest.mark.parametrize(
    ("text", "radius", "near"),
    [
        ("52.52,13.405", None, Near(52.52, 13.405, 50)),
        (" -33.8688 , 151.2093 ", 0.5, Near(-33.8688, 151.2093, 0.5)),
        ("90,-180", 20_040, Near(90, -180, 20_040)), ("0,0", 1, Near(0, 0, 1)),
    ],
)  # fmt: skip
def test_near_is_latitude_and_longitude(text: str, radius: float | None, near: Near) -> None:
    assert canonical(near=text, **({} if radius is None else {"radius_km": radius})).near == near


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("90s", NOW - timedelta(seconds=90)), ("15m", NOW - timedelta(minutes=15)), ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)), ("0s", NOW),
        ("2026-06-30T09:30:00Z", datetime(2026, 6, 30, 9, 30, tzinfo=UTC)),
        ("2026-06-30T09:30:00+02:00", datetime(2026, 6, 30, 7, 30, tzinfo=UTC)),
        ("2026-06-30T09:30:00 02:00", datetime(2026, 6, 30, 7, 30, tzinfo=UTC)),  # a plus sign that was not escaped
        ("2026-06-30T09:30:00.25-05:00", datetime(2026, 6, 30, 14, 30, 0, 250_000, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_since_is_a_time_or_a_time_ago(text: str, instant: datetime) -> None:
    assert parse_since(text, NOW) == instant


@pytest.mark.parametrize(
    "text",
    [
        "", "yesterday", "15", "15 m", "-15m", "1.5h", "15min", "2w", "99999999d", "999999999s", "2026-06-30",
        "2026-06-30T09:30:00",
        "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-01:00", "٣h",
    ],
)  # fmt: skip
def test_since_refuses_what_is_no_instant(text: str) -> None:
    with pytest.raises(Invalid, match="since: must be an RFC 3339 time"):
        parse_since(text, NOW)


def start(header: str | None = None, **asked: Any) -> Start:
    return StreamQuery.model_validate(asked).start(header, NOW)


def test_the_header_comes_before_the_parameter_before_since_before_from() -> None:
    assert start() == Start()
    assert start(**{"from": "earliest"}) == Start(earliest=True)
    assert start(**{"from": "earliest"}, since="1h") == Start(since=NOW - timedelta(hours=1))
    assert start(since="1h", last_event_id="7") == Start(cursor=Cursor(7))
    assert start("1.8", since="1h", last_event_id="7") == Start(cursor=Cursor(8, 1))
    assert start("", last_event_id="7") == Start(cursor=Cursor(7))


def test_an_id_that_is_none_of_ours_is_malformed_and_not_now() -> None:
    assert start("garbage") == Start(malformed=True)
    assert start(last_event_id="1.2.3", since="1h") == Start(malformed=True)


def test_a_bad_since_is_refused_even_behind_an_id() -> None:
    with pytest.raises(Invalid):
        start("7", since="yesterday")


def test_the_query_string_says_the_same_again() -> None:
    query = FilterQuery.model_validate(
        {"company": ["A&B", "é"], "salary_min": 60000.5, "currency": ["EUR"], "q": "a b", "near": "1.5,2",
        "radius_km": 7,
         "event": ["posted"]}
    )  # fmt: skip
    again = parse_qs(query.encoded(last_event_id="1.2"))
    assert again.pop("last_event_id") == ["1.2"]
    single = {name: again[name][0] for name in ("salary_min", "q", "near", "radius_km")}
    assert FilterQuery.model_validate(again | single) == query


@pytest.mark.parametrize("value", [1234567.25, 999_999.99, 123_456.78, 0.1, 1e15])
def test_an_amount_keeps_every_digit_in_the_query_string(value: float) -> None:
    query = FilterQuery(salary_min=value, currency=["EUR"])
    assert float(parse_qs(query.encoded())["salary_min"][0]) == value


def test_a_filter_is_bounded_over_all_its_names() -> None:
    canonical(company=["a"] * 50, tag=["b"] * 49, q="c")
    with pytest.raises(Invalid, match="has 101 values and words; at most 100 are allowed"):
        canonical(company=["a"] * 50, tag=["b"] * 49, q="c d")


def test_a_query_string_is_a_filter_and_nothing_else() -> None:
    assert (
        parse_filter("company=Acme&tag=python&tag=go")
        == FilterQuery(company=["acme"], tag=["go", "python"]).canonical()
    )
    assert parse_filter("") == EVERYTHING
    for wrong in ("compani=acme", "company=", "q=a&q=b", "salary_min=10", "workplace=moon", "since=1h", "near=1,2,3"):
        with pytest.raises(Invalid):
            parse_filter(wrong)


def test_a_filter_within_another_lets_through_what_both_do() -> None:
    outer, inner = parse_filter("company=acme&event=posted"), parse_filter("tag=python")
    narrowed = inner.narrowed(outer)
    assert narrowed != inner
    assert inner.narrowed(EVERYTHING) == inner
    assert EVERYTHING.narrowed(outer).equalities() == outer.equalities()
    assert narrowed.wants(Kind.POSTED)
    assert not narrowed.wants(Kind.CLOSED)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("compny=acme", "compny: unknown filter; did you mean `company`?"),
        ("Tag=go", "Tag: unknown filter; did you mean `tag`?"),
        ("xyz=1", "xyz: unknown filter"), ("workplace=moon", "workplace: must be onsite, hybrid or remote"),
        ("salary_min=lots", "salary_min: must be a number"),
        ("currency=euro", "currency: must be a currency code of three letters"),
        ("near=here", "near: must be a latitude and a longitude in degrees"), ("q=a&q=b", "q: must be given only once"),
        ("radius_km=0", "radius_km: must be over 0"), ("company=", "company: must not be empty"),
        (f"company={'x' * 201}", "company: must have at most 200 characters"),
    ],
)  # fmt: skip
def test_a_filter_that_will_not_do_is_refused_in_plain_words(text: str, says: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_filter(text)
    assert str(refused.value).startswith(says)


def test_no_near_name_is_looked_for_beyond_a_few() -> None:
    with pytest.raises(Invalid) as refused:
        parse_filter("&".join(f"company{number}=x" for number in range(500)))
    assert len(refused.value.faults) == 100
    assert sum("did you mean" in fault.message for fault in refused.value.faults) == 10
