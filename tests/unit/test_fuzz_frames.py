"""Frames: what goes in comes out of a parser that is as strict as the standard, and out of the client, however it is cut."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from httpx_sse import EventSource
from hypothesis import given
from hypothesis import strategies as st

from feed.client.errors import UnexpectedAnswer
from feed.client.event import StreamEvent, read_event
from feed.model import frame
from feed.model.event import Event, Kind
from tests.fuzz import cut, tries


@dataclass(frozen=True, slots=True)
class Dispatched:
    """What a browser's listener is given."""

    id: str
    event: str
    data: str


def strict(body: bytes) -> Iterator[Dispatched]:
    """WHATWG HTML, 9.2.6, to the letter; what is no line of ours is a fault."""
    text = body.decode()  # strictly: a browser would put U+FFFD in its place
    last_id, event, data = "", "", ""
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        name, colon, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Dispatched(last_id, event or "message", data.removesuffix("\n"))
            event, data = "", ""
        elif name == "id":
            assert "\0" not in value
            last_id = value
        elif name == "event":
            event = value
        elif name == "data":
            data += value + "\n"
        else:
            assert name == "retry" and colon and value.isascii() and value.isdigit() and int(value) > 0, line


async def through_the_client(pieces: list[bytes]) -> list[StreamEvent]:
    """As `FeedClient.follow` reads a response that comes in these pieces."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    response = httpx.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, content=body())
    cursor, found = "", []
    async for one in EventSource(response).aiter_sse():
        cursor = one.id or cursor
        event = read_event(one, cursor)
        if event is not None:
            found.append(event)
    return found


hostile = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("\0\r\n\x0b\x0c\x1c\x85\u2028\u2029\ufeff\ufffe\U0001f600:"),
        st.sampled_from("data: id:event retry\n"),
    ),
    max_size=60,
)
jobs = st.fixed_dictionaries(
    {"id": st.integers(1, 2**53 - 1), "title": hostile, "company": hostile, "tags": st.lists(hostile, max_size=3)}
)
events = st.builds(
    Event,
    st.integers(1, 2**53 - 1),
    st.sampled_from(Kind),
    jobs,
    st.none(),
    st.sampled_from([None, "deleted", "expired"]),
)
AT = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


@tries(200)
@given(
    st.lists(st.tuples(events, st.sampled_from(Kind)), max_size=4),
    hostile,
    st.lists(st.integers(0, 10**6), max_size=12),
)
def test_a_stream_reads_back_as_what_was_written_however_it_is_cut(
    told: list[tuple[Event, Kind]], snapshot: str, places: list[int]
) -> None:
    body = frame.opening(7, 1, 2000) + frame.synced(1, 0)
    expected: list[tuple[str, str, Any]] = [("7.1", "synced", {"position": 1, "replayed": 0})]
    last = "7.1"
    for event, kind in told:
        body += frame.event_frame(7, event, kind)
        last = f"7.{event.position}"
        expected.append((last, kind.value, frame.document(event, kind)))
    body += frame.reset(7, 9, "pruned", snapshot) + frame.pin(7, 10) + frame.heartbeat(7, 11, AT)
    expected.append(("7.9", "reset", {"reason": "pruned", "snapshot": snapshot}))
    expected.append(("7.11", "heartbeat", {"position": 11, "at": "2026-11-21T09:30:00.000Z"}))
    body += frame.goodbye("drain", 900)
    expected.append(("7.11", "goodbye", {"reason": "drain", "retry_ms": 900}))

    assert [(one.id, one.event, orjson.loads(one.data)) for one in strict(body)] == expected
    read = [one for one in asyncio.run(through_the_client(cut(body, places))) if one.kind != "cursor"]
    assert [(one.id, one.kind, one.data) for one in read] == expected
    # Nor does a reader that takes any of Unicode's line ends for one see a line too many.
    assert body.decode().splitlines() == body.decode().split("\n")[:-1]


@tries(200)
@given(st.text(st.characters(), max_size=40))
def test_text_is_sent_as_it_is_or_not_at_all(title: str) -> None:
    event = Event(1, Kind.POSTED, {"id": 1, "title": title})
    try:
        made = frame.event_frame(7, event, Kind.POSTED)
    except orjson.JSONEncodeError:
        assert any("\ud800" <= character <= "\udfff" for character in title)
    else:
        assert [orjson.loads(one.data)["title"] for one in strict(made)] == [title]


lines = st.one_of(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["id", "event", "data", "retry", "", "x", "\ufeffdata"]),
        st.sampled_from([":", ": ", "", " :"]),
        st.one_of(
            hostile,
            st.sampled_from(["{}", "[]", '{"a":1}', "nul", "1.2", "5", "-1", "99999999999999999999", "[" * 2000]),
        ),
    ),
    hostile,
)


@tries(300)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(st.tuples(lines, st.sampled_from(["\n", "\r", "\r\n", "\n\n"])), max_size=12).map(
            lambda parts: "".join(line + end for line, end in parts).encode()
        ),
    ),
    st.lists(st.integers(0, 10**6), max_size=8),
)
def test_the_client_reads_whatever_comes_or_says_that_it_is_no_feed(body: bytes, places: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> object:
        try:
            return asyncio.run(through_the_client(pieces))
        except UnexpectedAnswer as error:
            return str(error)

    assert outcome(cut(body, places)) == outcome([body] if body else [])


@pytest.mark.parametrize("data", ["{", "[]", "1", "null", "[" * 100_000, "\ufeff{}", '{"a":NaN}'])
def test_data_that_is_no_object_is_no_feed(data: str) -> None:
    with pytest.raises(UnexpectedAnswer):
        asyncio.run(through_the_client([f"event: posted\ndata: {data}\n\n".encode()]))
