"""Cursors: what a client may send back, and what is none of ours."""

import pytest

from feed.model.cursor import Cursor, parse_cursor


@pytest.mark.parametrize(
    ("text", "cursor"),
    [
        ("217000000.42", Cursor(42, 217000000)),
        ("42", Cursor(42)),
        ("0", Cursor(0)),
        ("1.0", Cursor(0, 1)),
        (" 1.7 ", Cursor(7, 1)),
        ("007", Cursor(7)),
        ("9223372036854775807", Cursor(2**63 - 1)),
        ("217390123456.42", Cursor(42, 217390123456)),
        ("999999999999999.9223372036854775807", Cursor(2**63 - 1, 999999999999999)),
    ],
)
def test_an_id_and_a_bare_position_are_cursors(text: str, cursor: Cursor) -> None:
    assert parse_cursor(text) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ".", "1.", ".1", "1.2.3", "-1", "+1", "1e3", "0x1", "1_000", "a", "1.a", "1 2", "1\n2", "٣", "１",
        "1.-2", "null",
        "9223372036854775808", "1000000000000000.1", "1" * 20, "1" * 100_000, "1." + "0" * 20,
    ],
)  # fmt: skip
def test_anything_else_is_none(text: str) -> None:
    assert parse_cursor(text) is None


@pytest.mark.parametrize("cursor", [Cursor(42, 7), Cursor(42), Cursor(0, 1)])
def test_a_cursor_reads_back_as_it_was_written(cursor: Cursor) -> None:
    assert parse_cursor(str(cursor)) == cursor
