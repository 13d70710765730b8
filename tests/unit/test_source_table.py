"""Sources on the terminal: every column and note, on a wide terminal and on a narrow one."""

from dataclasses import replace

from rich.console import Console

from feed.cli.source_table import SourceTable
from feed.model.source import Source
from feed.model.source_document import sources_document
from tests.sources import EVERY, NOW, SUSPECT


def shown(sources: list[Source], width: int, fault: str | None = None) -> list[str]:
    """The lines of a table."""
    table = SourceTable("feed top http://x")
    table.update(sources_document(sources, NOW))
    table.fault = fault
    console = Console(width=width, highlight=False, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_a_wide_terminal_gets_a_table_and_below_it_what_needs_attention() -> None:
    head, _, names, first, *_ = (lines := shown(EVERY, 200))
    assert head == (
        "feed top http://x  12:01:02Z  6 sources (2 ok, 1 new, 1 suspect, 1 failing, 1 paused)  6,170 open postings"
    )
    assert " ".join(names.split()) == "SOURCE STATE OPEN LAST SUCCESS NEXT TRY LAST CHANGE POSTED UPDATED CLOSED"
    assert " ".join(first.split()) == "greenhouse:acme ok 1,234 1m00s ago in 14m00s 1h00m ago 12 3 4"
    rows = [" ".join(line.split()) for line in lines]
    for row in (
        "remotive:all new 0 never now - - - -",
        "rss:still paused 1,234 1m00s ago - 1h00m ago 12 3 4",
        "lever:firm: suspect for 2h00m: 100 postings, not 1,234. Nothing is closed meanwhile; if it is true: "
        "feed source accept lever:firm",
        "ashby:down: no success for 1m00s, 3 failures in a row: boards.example answered 503\ufffd[2J",
        "remotive:all: must be named beside its postings: Remotive, https://remotive.example",
        "greenhouse:bad: postings of the newest list that could not be read: 2, the first is 7: title: is required",
    ):
        assert row in rows


def test_a_narrow_terminal_gets_the_same_in_lines_that_fit() -> None:
    lines = shown(EVERY, 44)
    assert max(map(len, lines)) <= 44
    words = " ".join(" ".join(lines).split())
    for part in (
        "greenhouse:acme ok 1,234 open last success 1m00s ago, next try in 14m00s "
        "last change 1h00m ago: 12 posted, 3 updated, 4 closed",
        "remotive:all new 0 open last success never, next try now",
        "rss:still paused 1,234 open last success 1m00s ago, next try -",
        "feed source accept lever:firm",
        "3 failures in a row: boards.example answered 503",
    ):
        assert part in words


def test_a_suspicion_that_was_overruled_asks_for_nothing_more() -> None:
    (note,) = (line for line in shown([replace(SUSPECT, accepted=True)], 200) if "suspect for" in line)
    assert note.endswith("The next complete list is believed")


def test_a_server_that_is_away_is_said_to_be_and_the_last_answer_stays() -> None:
    lines = shown(EVERY, 200, fault="nobody answers")
    assert lines[1] == "as of 12:01:02Z: nobody answers"
    assert any("greenhouse:acme" in line for line in lines)


def test_without_sources_it_says_how_to_add_one() -> None:
    assert "feed source add" in " ".join(shown([], 80))
