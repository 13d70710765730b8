"""A preview of a source on the terminal: what the board holds now, and what a run would make of it."""

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from feed.cli.messages import clean
from feed.cli.new_source import terms_of
from feed.ingest.preview import Preview
from feed.model.posting import PostingIn

_SAMPLES = 3
"""Postings that are shown."""
_DESCRIBED = 150
"""Characters of a description that are shown."""


class PreviewTable:
    """Renders a preview: facts, what a run would do, samples, and what could not be read."""

    def __init__(self, found: Preview) -> None:
        self._preview = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in self._facts():
            table.add_row(f"  {name}", text)
        yield Text(self._preview.source.name, "bold")
        yield table
        for posting in self._preview.found.postings[:_SAMPLES]:
            yield Text()
            yield from _sample(posting)
        if self._preview.bad:
            yield Text()
            yield from self._bad()

    def _facts(self) -> Iterator[tuple[str, Text]]:
        preview, found, verdict = self._preview, self._preview.found, self._preview.verdict
        yield "fetched", Text(clean(preview.url))
        if found.company is not None:
            yield "company", Text(clean(found.company))
        unread = f", {preview.bad:,} more could not be read" if preview.bad else ""
        number = len(found.postings)
        yield "list", Text(f"{number:,} posting{'' if number == 1 else 's'}{unread}; {self._extent()}")
        for line in terms_of(preview.source):
            yield "terms", Text(clean(line))
        if verdict.suspect is not None:
            yield "suspect", Text(clean(verdict.suspect), "yellow")
        backfill = " (marked as backfill)" if preview.posted and preview.source.succeeded_at is None else ""
        yield "would post", Text(f"{preview.posted:,}{backfill}")
        yield "would update", Text(f"{preview.updated:,}")
        yield "would close", Text(self._closed())

    def _extent(self) -> str:
        if self._preview.rolling:
            return "it holds the newest only, so nothing closes because it is not in it"
        return "complete" if self._preview.complete else "not complete, so nothing closes because it is not in it"

    def _closed(self) -> str:
        verdict = self._preview.verdict
        closed = f"{len(verdict.close):,}"
        if verdict.foreign:
            return f"{closed}, and nothing of the list would be written"
        if verdict.suspect is not None and self._preview.missing:
            name = clean(self._preview.source.name)
            return f"{closed} while it is suspect; `feed source accept {name}` lets it close {self._preview.missing:,}"
        if verdict.absent and not self._preview.rolling:
            return f"{closed}, and {len(verdict.absent):,} more if the next list is without them too"
        return closed

    def _bad(self) -> Iterator[Text]:
        for bad in self._preview.faults:
            faults = "; ".join(f"{fault.field}: {fault.message}" for fault in bad.faults)
            name = "without an id" if bad.external_id is None else bad.external_id
            yield Text(f"could not be read: {clean(name)}: {clean(faults)}", "yellow")
        if (more := self._preview.bad - len(self._preview.faults)) > 0:
            yield Text(f"{more:,} more that could not be read are not shown")


def _sample(posting: PostingIn) -> Iterator[Text]:
    yield Text(clean(posting.title), "bold")
    facts = (
        posting.company, posting.location, posting.country, posting.workplace, posting.employment_type, _pay(posting)
    )  # fmt: skip
    yield Text(f"  {clean(' · '.join(fact for fact in facts if fact))}")
    yield Text(f"  {clean(posting.url)}")
    if posting.description:
        yield Text(
            f"  {clean(posting.description[:_DESCRIBED])}{'...' if len(posting.description) > _DESCRIBED else ''}"
        )


def _pay(posting: PostingIn) -> str | None:
    amounts = dict.fromkeys(f"{one:,.0f}" for one in (posting.salary_min, posting.salary_max) if one is not None)
    if not amounts:
        return None
    period = None if posting.salary_period is None else f"a {posting.salary_period}"
    return " ".join(part for part in (" to ".join(amounts), posting.currency, period) if part)
