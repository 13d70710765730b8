"""Whatever is sent as an id, a time or a filter: it is understood, or refused by name; nothing else ever happens."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from feed.errors import Invalid
from feed.model.cursor import Cursor, parse_cursor
from feed.model.filter import EVERYTHING, Terms
from feed.model.posting import FIELDS
from feed.model.query import FilterQuery, StreamQuery, parse_filter, parse_since
from tests.fuzz import tries

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
LISTS = ("company", "country", "location", "workplace", "employment_type", "seniority", "tag", "currency", "event")
ONES = ("salary_min", "q", "near", "radius_km")

# Lone surrogates too: they come in JSON (tokens) and in command lines.
any_text = st.text(st.one_of(st.characters(), st.characters(categories=["Cs"]), st.sampled_from("=&+%0")), max_size=60)
numbers = st.one_of(
    st.floats().map(str), st.integers().map(str), st.sampled_from(["1e5", "0x1", " 1 ", "1_0", "-0", "+1"])
)
places = st.builds("{}{}{}".format, numbers, st.sampled_from([",", " , ", ";", ""]), numbers)
likely = st.sampled_from(
    [
        "remote",
        "Remote",
        "EUR",
        "eur",
        "posted",
        "closed",
        "Zürich",
        "C++",
        "--",
        "",
        " ",
        "ﬁ",
        "İ",
        "a\u0301",
        "x" * 201,
    ]
)
values = st.one_of(any_text, numbers, places, likely)
queries = st.fixed_dictionaries(
    {}, optional={name: st.lists(values, max_size=4) for name in LISTS} | dict.fromkeys(ONES, values)
)


def cursors() -> st.SearchStrategy[Cursor]:
    return st.builds(Cursor, st.integers(0, 2**63 - 1), st.none() | st.integers(0, 10**15 - 1))


@tries(500)
@given(st.one_of(any_text, st.text("0123456789. \n\t-+eE_", max_size=40), st.from_regex(r"[0-9]{1,12}\.[0-9]{1,21}")))
def test_an_id_is_a_cursor_in_bounds_or_none(text: str) -> None:
    cursor = parse_cursor(text)
    if cursor is None:
        return
    assert 0 <= cursor.position < 2**63
    assert cursor.epoch is None or 0 <= cursor.epoch < 10**15
    assert parse_cursor(str(cursor)) == cursor
    assert set(text.strip()) <= set("0123456789.")


@tries(300)
@given(cursors(), st.sampled_from(["", " ", "\n", "\t "]))
def test_a_cursor_comes_back_whatever_blanks_are_around_it(cursor: Cursor, blanks: str) -> None:
    assert parse_cursor(f"{blanks}{cursor}{blanks}") == cursor


@tries(500)
@given(
    st.one_of(
        any_text, st.text("0123456789smhdTZ:.+- ", max_size=40), st.from_regex(r"[0-9]{1,9}[smhdw]", fullmatch=True)
    )
)
def test_since_is_an_instant_or_refused_by_name(text: str) -> None:
    try:
        instant = parse_since(text, NOW)
    except Invalid as refused:
        assert [fault.field for fault in refused.faults] == ["since"]
    else:
        assert instant.utcoffset() == timedelta(0)


zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@tries(300)
@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=zones), st.booleans())
def test_every_rfc_3339_time_is_understood_with_its_plus_sign_escaped_or_not(at: datetime, escaped: bool) -> None:
    text = at.isoformat() if escaped else at.isoformat().replace("+", " ")
    assert parse_since(text, NOW) == at


def understood(asked: dict[str, Any]) -> FilterQuery | None:
    """The query, or nothing where it was refused by the names that it has."""
    try:
        query = FilterQuery.model_validate(asked)
        query.canonical()
    except ValidationError as refused:
        assert {error["loc"][0] for error in refused.errors()} <= asked.keys()
    except Invalid as refused:
        assert {fault.field for fault in refused.faults} <= asked.keys()
    else:
        return query
    return None


@tries(600)
@given(queries)
def test_a_filter_is_understood_or_refused_by_name(asked: dict[str, Any]) -> None:
    query = understood(asked)
    if query is None:
        return
    wanted = query.canonical()
    hash(wanted)  # it names a group
    wanted.matches(Terms(dict.fromkeys(FIELDS) | {"title": "Baker", "company": "Acme", "workplace": "remote"}))
    assert (wanted == EVERYTHING) == (
        not any(asked.values()) or set(asked.get("event", ())) == {"posted", "updated", "closed"}
    )


good = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
understandable = st.fixed_dictionaries(
    {},
    optional={
        "company": st.lists(good, max_size=3), "country": st.lists(good, max_size=3), "tag": st.lists(good, max_size=3),
        "location": st.lists(good.map(lambda text: f"a{text}"), max_size=3), "q": good.map(lambda text: f"{text} a"),
        "workplace": st.lists(st.sampled_from(["onsite", "hybrid", "remote"]), max_size=3),
        "event": st.lists(st.sampled_from(["posted", "updated", "closed"]), max_size=3),
        "currency": st.lists(st.sampled_from(["EUR", "usd"]), min_size=1, max_size=2),
        "near": st.builds("{:.4f},{:.4f}".format, st.floats(-90, 90), st.floats(-180, 180)),
    },
)  # fmt: skip


@tries(400)
@given(understandable, st.none() | st.floats(0, 1e15), st.none() | st.floats(0, 20_040, exclude_min=True))
def test_a_filter_means_the_same_after_the_query_string(
    asked: dict[str, Any], salary: float | None, radius: float | None
) -> None:
    if salary is not None and "currency" in asked:
        asked["salary_min"] = salary
    if radius is not None and "near" in asked:
        asked["radius_km"] = radius
    query = understood(asked)
    assert query is not None
    again = parse_qs(query.encoded(), keep_blank_values=True)
    read: dict[str, Any] = {name: given if name in LISTS else given[0] for name, given in again.items()}
    assert FilterQuery.model_validate(read).canonical() == query.canonical()
    assert parse_filter(query.encoded()) == query.canonical()


@tries(400)
@given(
    st.one_of(
        any_text, st.lists(st.builds("{}={}".format, st.sampled_from([*LISTS, *ONES, "x", ""]), values)).map("&".join)
    )
)
def test_a_filter_as_a_query_string_is_understood_or_refused(text: str) -> None:
    try:
        hash(parse_filter(text))
    except Invalid as refused:
        assert refused.faults


@tries(300)
@given(st.none() | any_text, st.fixed_dictionaries({}, optional={"last_event_id": any_text, "since": any_text}))
def test_a_start_is_found_or_refused_for_its_since(header: str | None, asked: dict[str, Any]) -> None:
    try:
        start = StreamQuery.model_validate(asked).start(header, NOW)
    except ValidationError as refused:
        assert {error["loc"][0] for error in refused.errors()} <= {"since"}
    except Invalid as refused:
        assert [fault.field for fault in refused.faults] == ["since"]
    else:
        assert start.malformed == bool((header or asked.get("last_event_id")) and start.cursor is None)


@pytest.mark.parametrize("name", ["company", "q", "location"])
@tries(100)
@given(text=st.text(st.sampled_from("a\0\ud800\udfff "), min_size=1, max_size=5))
def test_what_sql_cannot_be_asked_for_never_gets_there(name: str, text: str) -> None:
    query = understood({name: [text] if name in LISTS else text})
    assert query is None or not set(text) & set("\0\ud800\udfff")
