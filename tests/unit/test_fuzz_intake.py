"""NDJSON: the same postings, or the same refusal, however the body is cut into pieces."""

import asyncio
from functools import cache
from typing import Any

import orjson
from hypothesis import assume, given
from hypothesis import strategies as st
from starlette.requests import Request

from feed.errors import FeedError, Invalid, TooLarge
from feed.http.intake import Intake, Spool, read_json, take_array, take_lines
from feed.settings.http import RequestSettings
from feed.settings.settings import load_settings
from tests.fuzz import cut, tries

JOB = {"title": "Baker", "company": "Acme", "url": "https://acme.example/1"}


@cache
def _settings() -> RequestSettings:
    return load_settings(item_bytes=200, request_bytes=2000).requests


def request(pieces: list[bytes]) -> Request:
    """A request whose body comes in these pieces."""
    left = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    left.append({"type": "http.request", "body": b"", "more_body": False})
    scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "headers": []}

    async def receive() -> Any:
        return left.pop(0)

    return Request(scope, receive)


async def taken(pieces: list[bytes]) -> list[dict[str, Any]]:
    """The postings that would be written, as the job store is given them."""
    with Spool() as spool:
        await take_lines(request(pieces), Intake(spool), _settings())
        rows = [row for batch in spool for row in orjson.loads(batch.json)]
        assert len(rows) == spool.rows
        return rows


def outcome(pieces: list[bytes]) -> object:
    try:
        return asyncio.run(taken(pieces))
    except Invalid as error:
        return error.faults
    except TooLarge:
        return "too large"  # the item, or all of it: whichever is noticed first


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**70), 2**70) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
FIELDS = ("source", "external_id", "title", "url", "tags", "salary_min", "salary_max", "currency", "latitude", "longitude",
         "posted_at", "closed_at", "workplace", "id", "href")  # fmt: skip
postings = st.dictionaries(st.sampled_from(FIELDS), values, max_size=4).map(lambda more: JOB | more)
good = st.integers(0, 30).map(lambda n: orjson.dumps(JOB | {"external_id": str(n)}))


def dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return repr(value).encode("utf-8", "replace")


lines = st.one_of(
    good, good, good, postings.map(dumped), values.map(dumped), st.binary(max_size=60),
    st.sampled_from([b"", b" ", b"\r", b"\x0b", b"\xef\xbb\xbf{}", b"[" * 3000, b"{}" * 101]),
    st.sampled_from([b'{"title":"\\ud800"}', b"\xff", b"\x00"]),
)  # fmt: skip
bodies = st.lists(lines, max_size=12).flatmap(
    lambda parts: st.sampled_from([b"\n", b"\r\n", b"\n\n"]).map(lambda end: end.join(parts))
)
places = st.lists(st.integers(0, 10**6), max_size=20)


@tries(400)
@given(bodies, places)
def test_a_body_means_the_same_however_it_is_cut(body: bytes, edges: list[int]) -> None:
    whole = outcome([body] if body else [])
    assert outcome(cut(body, edges)) == whole
    assert outcome([body[place : place + 7] for place in range(0, len(body), 7)]) == whole


@tries(300)
@given(bodies, places)
def test_skipping_leaves_out_the_same_postings_however_the_body_is_cut(body: bytes, edges: list[int]) -> None:
    assume(len(body) <= 2000)

    async def skipped(pieces: list[bytes]) -> tuple[list[Any], int, list[Any]]:
        with Spool() as spool:
            intake = Intake(spool, skip=True)
            await take_lines(request(pieces), intake, _settings())
            return [row for batch in spool for row in orjson.loads(batch.json)], intake.rejected, intake.faults

    rows, rejected, faults = whole = asyncio.run(skipped([body] if body else []))
    assert asyncio.run(skipped(cut(body, edges))) == whole
    assert len(rows) + rejected == sum(bool(line.strip()) for line in body.split(b"\n"))
    assert len({fault.index for fault in faults}) == rejected or len(faults) == 100
    for fault in faults:
        assert body.split(b"\n")[fault.line - 1].strip()
    good = outcome([body] if body else [])
    if isinstance(good, list):
        assert (rows, rejected) == (good, 0)


@tries(200)
@given(st.lists(st.integers(0, 30), max_size=15, unique=True), places, st.sampled_from([b"\n", b"\r\n", b"\n \n"]))
def test_postings_arrive_all_and_in_order(numbers: list[int], edges: list[int], end: bytes) -> None:
    body = end.join(orjson.dumps(JOB | {"external_id": str(number)}) for number in numbers)
    rows = outcome(cut(body, edges))
    assert isinstance(rows, list)
    assert [row["external_id"] for row in rows] == [str(number) for number in numbers]


@tries(300)
@given(st.one_of(st.binary(max_size=200), values.map(dumped), st.lists(postings, max_size=3).map(dumped)), places)
def test_a_json_body_is_read_or_refused_in_words(body: bytes, edges: list[int]) -> None:
    async def read() -> None:
        given_body = await read_json(request(cut(body, edges)), _settings())
        if isinstance(given_body, list):
            with Spool() as spool:
                await take_array(given_body, Intake(spool), _settings())

    try:
        asyncio.run(read())
    except FeedError as refused:
        assert isinstance(refused, Invalid | TooLarge)
        assert str(refused)


async def test_pieces_that_are_empty_change_nothing() -> None:
    assert await taken([b"", orjson.dumps(JOB), b"", b"\n", b""]) == await taken([orjson.dumps(JOB)])
