"""Events read well on a terminal and in a pipe, and cannot harm either."""

import re
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from feed.cli.event_lines import EventLines, pay
from feed.cli.messages import clean
from feed.client import StreamEvent


def shown(terminal: bool, kind: str = "posted", width: int = 60, **fields: Any) -> str:
    out = StringIO()
    console = Console(file=out, force_terminal=terminal, width=width, color_system="standard" if terminal else None)
    job = {"title": "Engineer", "company": "Acme", "updated_at": "2026-11-21T09:30:00Z", **fields}
    EventLines(console, now=lambda: datetime(2026, 11, 21, tzinfo=UTC)).show(StreamEvent("1.1", kind, job))
    return out.getvalue()


def test_a_pipe_gets_one_plain_line_however_long() -> None:
    line = shown(False, title="long " * 40, location="Berlin", salary_min=70000, currency="EUR")
    assert line.count("\n") == 1
    assert line.endswith(" · Acme · Berlin · 70,000 EUR\n")
    assert "\x1b" not in line


def test_a_line_in_a_pipe_has_the_date_and_the_url() -> None:
    line = shown(False, url="https://a.example/1?x=ü")
    assert re.fullmatch(r"2026-11-21 \d\d:\d\d:00 \+ Engineer · Acme · https://a.example/1\?x=ü\n", line)
    assert shown(False, updated_at=None).startswith("---------- --:--:-- + Engineer")


def test_a_terminal_gets_columns_that_hang() -> None:
    lines = shown(True, title="word " * 30, url="https://a.example/1").splitlines()
    assert len(lines) > 2
    assert all(re.sub("\x1b.*?m", "", line).startswith(" " * 9) for line in lines[1:])
    assert "https://a.example/1" in lines[0]


def test_a_closed_posting_says_why() -> None:
    assert "- Engineer · Acme · closed: expired" in shown(False, "closed", reason="expired")


@pytest.mark.parametrize("terminal", [True, False])
def test_text_cannot_steer_the_terminal(terminal: bool) -> None:
    evil = "\x1b[2J\x1b]0;x\x07\r\n\u2028\u202e\x9b[bold]"
    out = shown(terminal, title=evil, company=evil, location=evil, url=f"https://a.example/{evil}", width=300)
    for bad in ("\x1b[2J", "\x1b]0", "\x07", "\r", "\u2028", "\u202e", "\x9b"):
        assert bad not in out
    assert out.count("\n") == 1
    assert "[bold]" in out


@pytest.mark.parametrize("text", ["Zürich", "東京 \u3000", "👩\u200d💻", "a\u00a0b"])
def test_clean_text_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("job", "text"),
    [
        ({}, ""),
        ({"currency": "EUR", "salary_period": "year"}, ""),
        (
            {"salary_min": 70000, "salary_max": 90000, "currency": "EUR", "salary_period": "year"},
            "70,000-90,000 EUR/year",
        ),
        ({"salary_min": 20.5, "salary_max": 20.5, "currency": "USD", "salary_period": "hour"}, "20.50 USD/hour"),
        ({"salary_max": 1000.0, "salary_min": None}, "1,000"),
    ],
)
def test_pay_reads_as_a_range(job: dict[str, Any], text: str) -> None:
    assert pay(job) == text
