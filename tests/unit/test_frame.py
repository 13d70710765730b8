"""Frames: the exact bytes of each, and JSON that no reader can break in two."""

from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feed.model import frame
from feed.model.event import Event, Kind

JOB = {"id": 42, "title": "Baker"}


def test_opening_is_a_retry_and_a_frame_with_nothing_but_an_id() -> None:
    assert frame.opening(7, 120, 2731) == b"retry: 2731\n\nid: 7.120\n\n"


def test_a_pin_stands_alone() -> None:
    assert frame.pin(7, 120) == b"id: 7.120\n\n"


def test_synced_has_no_id() -> None:
    assert frame.synced(130, 9) == b'event: synced\ndata: {"position":130,"replayed":9}\n\n'


def test_heartbeat_names_the_head_and_the_servers_clock() -> None:
    at = datetime(2026, 11, 21, 9, 30, 0, 123_456, UTC)
    assert frame.heartbeat(7, 130, at) == (
        b'id: 7.130\nevent: heartbeat\ndata: {"position":130,"at":"2026-11-21T09:30:00.123Z"}\n\n'
    )
    now = orjson.loads(frame.heartbeat(7, 130).split(b"data: ")[1])
    assert datetime.fromisoformat(now["at"]).tzinfo is not None


def test_reset_names_its_reason_and_the_snapshot() -> None:
    assert frame.reset(7, 130, "pruned", "/v1/jobs?tag=go") == (
        b'id: 7.130\nevent: reset\ndata: {"reason":"pruned","snapshot":"/v1/jobs?tag=go"}\n\n'
    )


def test_goodbye_says_twice_when_to_come_back_and_has_no_id() -> None:
    assert frame.goodbye("drain", 4123) == (
        b'retry: 4123\nevent: goodbye\ndata: {"reason":"drain","retry_ms":4123}\n\n'
    )


@pytest.mark.parametrize("kind", [Kind.POSTED, Kind.UPDATED])
def test_an_event_is_its_posting_with_its_address(kind: Kind) -> None:
    assert frame.event_frame(7, Event(121, kind, JOB), kind) == (
        b"id: 7.121\nevent: " + kind.value.encode() + b'\ndata: {"id":42,"title":"Baker","href":"/v1/jobs/42"}\n\n'
    )


@pytest.mark.parametrize(("given_reason", "told"), [(None, "closed"), ("deleted", "deleted"), ("expired", "expired")])
def test_a_closed_event_says_why(given_reason: str | None, told: str) -> None:
    made = frame.event_frame(7, Event(1, Kind.CLOSED, JOB, reason=given_reason), Kind.CLOSED)
    assert orjson.loads(made.split(b"data: ")[1])["reason"] == told


def test_an_event_that_left_a_filter_is_closed_for_that_reason() -> None:
    made = frame.event_frame(7, Event(1, Kind.UPDATED, JOB), Kind.CLOSED)
    assert made.startswith(b"id: 7.1\nevent: closed\n")
    assert orjson.loads(made.split(b"data: ")[1])["reason"] == "left_filter"


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("\r", rb"\r"), ("\n", rb"\n"), ("\x85", rb"\u0085"), ("\u2028", rb"\u2028"), ("\u2029", rb"\u2029"),
        ("\x0b", rb"\u000b"), ("\x0c", rb"\f"), ("\x1c\x1d\x1e", rb"\u001c\u001d\u001e"), ("\x00", rb"\u0000"),
        ("é€😀", "é€😀".encode()), ("\\u2028", rb"\\u2028"), ("Å\x84 â\x80¨", "Å\x84 â\x80¨".encode()),
    ],
)  # fmt: skip
def test_what_anybody_may_take_for_the_end_of_a_line_is_escaped_and_nothing_else(text: str, encoded: bytes) -> None:
    assert frame.encode({"title": text}) == b'{"title":"' + encoded + b'"}'


def test_what_is_no_text_is_refused_and_not_sent() -> None:
    with pytest.raises(orjson.JSONEncodeError):
        frame.encode({"title": "\ud800"})


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_as_it_was_from_one_line(title: str, company: str) -> None:
    made = frame.event_frame(7, Event(1, Kind.POSTED, JOB | {"title": title, "company": company}), Kind.POSTED)
    assert len(made.decode().splitlines()) == 4
    assert made.endswith(b"\n\n") and made.count(b"\n\n") == 1
    read = orjson.loads(made.split(b"\ndata: ", 1)[1])
    assert (read["title"], read["company"]) == (title, company)
