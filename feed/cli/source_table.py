"""What is known of the sources, as a table for the terminal, and below it what needs somebody's attention."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from feed.cli.ages import age, instant
from feed.cli.messages import clean

_WIDE = 100
"""Columns of a terminal from which on the sources are a table; a narrower one gets a few lines for each source."""
_COLOURS = {"ok": "green", "new": "cyan", "suspect": "yellow", "failing": "red", "paused": "dim"}
"""The colour of each state of a source."""

Source = Mapping[str, Any]
"""A source as `GET /v1/sources` tells of it."""


class SourceTable:
    """Renders the last answer of `GET /v1/sources`; `title` begins its first line."""

    def __init__(self, title: str) -> None:
        self.fault: str | None = None
        """Why the server gave no newer answer."""
        self._title = title
        self._now: Mapping[str, Any] = {}

    def update(self, answer: Mapping[str, Any]) -> None:
        """Take in the next answer."""
        self._now, self.fault = answer, None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        at = instant(self._now["at"])
        yield self._head()
        if self.fault is not None:
            yield Text(f"as of {self._now['at'][11:19]}Z: {clean(self.fault)}", "bold red")
        sources = self._now["sources"]
        if not sources:
            yield Text("There are no sources yet. To add one: feed source add greenhouse:acme")
            return
        yield Text()
        if options.max_width >= _WIDE:
            yield _table(sources, at)
            if notes := [(one, note) for one in sources for note in _notes(one, at)]:
                yield Text()
                yield from (Text.assemble((f"{clean(one['name'])}: ", "bold"), note) for one, note in notes)
        else:
            for one in sources:
                yield from _lines(one, at)
                yield from (Padding(note, (0, 0, 0, 2)) for note in _notes(one, at))

    def _head(self) -> Text:
        states = Counter(one["state"] for one in self._now["sources"])
        counted = ", ".join(f"{count:,} {state}" for state in _COLOURS if (count := states[state]))
        number = len(self._now["sources"])
        return Text.assemble(
            (f"{self._title}  ", "bold"), f"{self._now['at'][11:19]}Z  ",
            (f"{number:,} source{'' if number == 1 else 's'}", "bold"), f" ({counted})" if counted else "",
            f"  {sum(one['open'] for one in self._now['sources']):,} open postings",
        )  # fmt: skip


def _table(sources: list[Source], at: datetime) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    table.add_column("SOURCE", overflow="fold")
    table.add_column("STATE", no_wrap=True)
    for name in ("OPEN", "LAST SUCCESS", "NEXT TRY", "LAST CHANGE", "POSTED", "UPDATED", "CLOSED"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in sources:
        table.add_row(
            clean(one["name"]), _state(one), f"{one['open']:,}", _ago(one["last_success_at"], at), _until(one, at),
            _changed(one, at), *(_count(one, name) for name in ("posted", "updated", "closed")),
        )  # fmt: skip
    return table


def _lines(one: Source, at: datetime) -> Iterator[Text]:
    """Yield the same of one source, in lines that a narrow terminal holds."""
    yield Text.assemble((clean(one["name"]), "bold"), "  ", _state(one), f"  {one['open']:,} open")
    then = "running now" if one["running"] else f"next try {_until(one, at)}"
    yield Text(f"  last success {_ago(one['last_success_at'], at)}, {then}")
    if one["last_change"] is not None:
        counts = ", ".join(f"{_count(one, name)} {name}" for name in ("posted", "updated", "closed"))
        yield Text(f"  last change {_changed(one, at)}: {counts}")


def _notes(one: Source, at: datetime) -> Iterator[Text]:
    """Yield a line for everything about a source that no column holds: what is wrong, what is asked for."""
    name = clean(one["name"])

    def note(text: str, style: str = "") -> Text:
        return Text(clean(text), style)

    if (failing := one["failing"]) is not None:
        since = age(at - instant(one["last_success_at"] or one["added_at"]))
        times = "the last run failed" if failing["failures"] == 1 else f"{failing['failures']:,} failures in a row"
        yield note(f"no success for {since}, {times}: {failing['error']}", _COLOURS["failing"])
    if (suspect := one["suspect"]) is not None:
        then = (
            "The next complete list is believed"
            if one["accepted"]
            else f"Nothing is closed meanwhile; if it is true: feed source accept {name}"
        )
        yield note(
            f"suspect for {age(at - instant(suspect['since']))}: {suspect['why'].rstrip('.')}. {then}",
            _COLOURS["suspect"],
        )
    if one["bad"]:
        first = "; ".join(
            f"{bad['external_id'] or 'without an id'}: {fault['field']}: {fault['message']}"
            for bad in one["faults"][:1]
            for fault in bad["faults"][:1]
        )
        yield note(f"postings of the newest list that could not be read: {one['bad']:,}, the first is {first}")
    if one["attribution"] is not None:
        yield note(f"must be named beside its postings: {one['attribution']}", "dim")


def _state(one: Source) -> Text:
    return Text(one["state"], _COLOURS.get(one["state"], ""))


def _count(one: Source, name: str) -> str:
    return "-" if one["last_change"] is None else f"{one['last_change'][name]:,}"


def _changed(one: Source, at: datetime) -> str:
    return "-" if one["last_change"] is None else _ago(one["last_change"]["at"], at)


def _ago(time: str | None, at: datetime) -> str:
    return "never" if time is None else f"{age(at - instant(time))} ago"


def _until(one: Source, at: datetime) -> str:
    if one["running"]:
        return "running"
    if one["next_try_at"] is None:
        return "-"
    left = instant(one["next_try_at"]) - at
    return f"in {age(left)}" if left.total_seconds() > 0 else "now"
