"""Whatever a board sends, an adapter finds postings in it or says what is wrong: it never fails in another way."""

import copy
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feed.ingest.adapter import Found, Malformed
from tests.fuzz import tries
from tests.unit.adapters.reading import fixture, read

JSON = {
    "greenhouse": "greenhouse.json", "lever": "lever.json", "ashby": "ashby.json", "recruitee": "recruitee.json",
    "smartrecruiters": "smartrecruiters.json", "remotive": "remotive.json", "remoteok": "remoteok.json",
    "json": "other.json",
}  # fmt: skip
OTHERS = {"personio": "personio.xml", "rss": "feed.rss", "jsonld": "page.html"}
LD = {
    "@graph": [
        {
            "@type": "JobPosting", "title": "Baker", "identifier": {"value": 1}, "datePosted": "2026-10-30",
            "employmentType": ["FULL_TIME"], "hiringOrganization": {"name": "Acme"}, "jobLocationType": "TELECOMMUTE",
            "jobLocation": [{"address": {"addressLocality": "Leeds", "addressCountry": {"name": "GB"}}}],
            "applicantLocationRequirements": [{"name": "GB"}], "validThrough": "2026-11-30T00:00:00Z", "url": "/1",
            "baseSalary": {"currency": "GBP", "value": {"minValue": 1, "maxValue": 2, "unitText": "HOUR"}},
            "description": "<p>Bake.</p>",
        }
    ]
}  # fmt: skip
values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**30), st.floats(), st.text(max_size=5), st.just("x" * 5000),
    st.sampled_from(["2026-13-45", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1e999999", "-1", "NaN",
                     "https://[", "http://a b/", "\ud800", "\x00", "javascript:alert(1)", "99999999999999.999"]),
    st.sampled_from([[], {}, [None], [[]], [{}], {"": None}, ["x"] * 200, {"name": ["x"]}, [{"location": 1}]]),
)  # fmt: skip


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return every place in a JSON value but the whole."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for name, one in inside for found in ((*path, name), *places(one, (*path, name)))]


def changed(original: Any, changes: list[tuple[float, Any]]) -> Any:
    """Return a copy with other values at some places."""
    body = copy.deepcopy(original)
    for where, value in changes:
        there = places(body)
        if not there:
            break
        *outer, last = there[int(where * len(there))]
        inside = body
        for name in outer:
            inside = inside[name]
        inside[last] = copy.deepcopy(value)
    return body


changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), values), min_size=1, max_size=4)


def json_of(value: Any) -> bytes:
    """Python's JSON, which has NaN, large integers and halves of surrogate pairs."""
    return json.dumps(value).encode()


def attempt(name: str, body: bytes, content_type: str = "application/json") -> Found | None:
    try:
        found = read(name, body, content_type)
    except Malformed as error:
        assert str(error)
        return None
    for bad in found.bad:
        assert bad.faults
    for posting in found.postings:
        assert posting.external_id
        orjson.dumps(posting.row())
    return found


@pytest.mark.parametrize("name", JSON)
@tries(60)
@given(changes=changes)
def test_json_with_other_values_in_any_place(name: str, changes: list[tuple[float, Any]]) -> None:
    attempt(name, json_of(changed(orjson.loads(fixture(JSON[name])), changes)))


@tries(100)
@given(changes=changes)
def test_json_ld_with_other_values_in_any_place(changes: list[tuple[float, Any]]) -> None:
    script = json_of(changed(LD, changes)).replace(b"</", b"<\\/")
    attempt("jsonld", b'<script type="application/ld+json">' + script + b"</script>", "text/html")


content_types = st.one_of(
    st.text(st.characters(codec="latin-1"), max_size=30),
    st.sampled_from(["text/html; charset=utf-16", "x; charset=zip", ""]),
)


@pytest.mark.parametrize("name", [*JSON, *OTHERS])
@tries(40)
@given(
    cut=st.floats(0, 1),
    put=st.binary(max_size=8),
    gone=st.integers(0, 40),
    content_type=content_types,
)
def test_broken_bytes(name: str, cut: float, put: bytes, gone: int, content_type: str) -> None:
    body = fixture({**JSON, **OTHERS}[name])
    place = int(cut * len(body))
    attempt(name, body[:place] + put + body[place + gone :], content_type)
    attempt(name, body[:place], content_type)


@pytest.mark.parametrize("name", [*JSON, *OTHERS])
@tries(40)
@given(body=st.one_of(st.binary(max_size=40), values.map(json_of)))
def test_bodies_of_another_kind(name: str, body: bytes) -> None:
    attempt(name, body)


@pytest.mark.parametrize("name", [*JSON, *OTHERS])
def test_nested_without_end(name: str) -> None:
    attempt(name, b"[" * 100_000)
    attempt(name, b'{"jobs":' * 100_000)
    attempt(name, b"<a>" * 20_000)
    attempt("jsonld", b'<script type="application/ld+json">' + b'{"@graph":[' * 100_000 + b"</script>", "text/html")
