"""What `feed source check` says: what a run would do, samples, and what could not be read, on wide and narrow terminals."""

from dataclasses import replace
from typing import Any

from rich.console import Console

from feed.cli.preview_table import PreviewTable
from feed.errors import Fault
from feed.ingest.adapter import Found
from feed.ingest.closing import Verdict
from feed.ingest.preview import Preview
from feed.model.posting import PostingIn
from feed.model.source import BadRow
from tests.sources import ACME, NEW

NOTHING = Verdict(None, False, False, (), (), (), (), (), None, 0, None)


def posting(number: int, **more: Any) -> PostingIn:
    given = {"title": f"Baker {number}", "company": "Acme", "url": f"https://acme.example/{number}"} | more
    return PostingIn.model_validate(given)


PAID = posting(
    1, location="Berlin", workplace="remote", salary_min=50_000, salary_max=60_000, currency="EUR", salary_period="year",
    description="You bake.\nEvery day. " * 20,
)  # fmt: skip
PREVIEW = Preview(
    ACME, "https://boards.example/acme", Found((PAID, *map(posting, range(2, 6))), True, company="Acme"),
    rolling=False, complete=True, posted=5, updated=0, missing=0, bad=0, faults=(), verdict=NOTHING,
)  # fmt: skip


def shown(preview: Preview, width: int = 200) -> list[str]:
    console = Console(width=width, highlight=False, force_terminal=False)
    with console.capture() as captured:
        console.print(PreviewTable(preview))
    return [" ".join(line.split()) for line in captured.get().splitlines()]


def test_it_tells_what_a_run_would_do_and_three_samples() -> None:
    lines = shown(PREVIEW)
    for line in (
        "fetched https://boards.example/acme", "company Acme", "list 5 postings; complete", "would post 5",
        "would update 0", "would close 0", "Baker 1", "Acme · Berlin · remote · 50,000 to 60,000 EUR a year",
        "https://acme.example/1", "Baker 3",
    ):  # fmt: skip
        assert line in lines
    assert "Baker 4" not in lines
    assert any(line.startswith("You bake. Every day. You bake") and line.endswith("...") for line in lines)
    assert max(map(len, shown(PREVIEW, 40))) <= 40


def test_the_first_run_and_the_terms_are_told() -> None:
    terms = replace(NEW, min_interval=21_600.0, syndicate=False)
    lines = shown(replace(PREVIEW, source=terms, rolling=True))
    for line in (
        "would post 5 (marked as backfill)", "list 5 postings; it holds the newest only, so nothing closes because it is "
        "not in it", "terms Remotive, https://remotive.example must be named beside its postings",
        "terms it is fetched once in 6h00m at the most", "terms its postings must not be passed on to other boards",
    ):  # fmt: skip
        assert line in lines


def test_what_would_close_and_what_waits_for_a_second_list_or_for_a_person_is_told() -> None:
    lines = shown(replace(PREVIEW, verdict=replace(NOTHING, close=("1", "2"), absent=("3",))))
    assert "would close 2, and 1 more if the next list is without them too" in lines
    lines = shown(replace(PREVIEW, missing=2, verdict=replace(NOTHING, suspect="the list is empty")))
    assert "suspect the list is empty" in lines
    assert "would close 0 while it is suspect; `feed source accept greenhouse:acme` lets it close 2" in lines
    lines = shown(replace(PREVIEW, verdict=replace(NOTHING, suspect="it is Other", foreign=True)))
    assert "would close 0, and nothing of the list would be written" in lines


def test_postings_that_could_not_be_read_are_told_with_their_faults_up_to_a_bound() -> None:
    row = BadRow("0", (Fault("title", "is required"), Fault("url", "is\x1b bad")))
    lines = shown(replace(PREVIEW, bad=25, faults=(row,) * 20))
    assert "list 5 postings, 25 more could not be read; complete" in lines
    assert "could not be read: 0: title: is required; url: is\ufffd bad" in lines
    assert "5 more that could not be read are not shown" in lines
