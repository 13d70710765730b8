"""What `feed attach` shows before it changes anything: the map with sample rows, what differs, and the command line."""

import re
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from feed.cli.messages import clean
from feed.database.attach_check import Sample
from feed.model.attach_map import AttachMap
from feed.model.attachment import AttachmentSpec
from feed.model.table import TableShape

_PLAIN = 160
"""Columns of a table that goes to a file or a pipe."""
_SHOWN = 90
"""Characters of a sample value."""
_REASONS = 5
"""Reasons that are told one by one."""


def show_map(spec: AttachmentSpec, sample: Sample | None) -> None:
    """Print the map as a table, with the sample's postings beside the expressions."""
    postings = () if sample is None else sample.postings
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("FIELD", no_wrap=True)
    table.add_column("EXPRESSION", ratio=2, overflow="fold")
    for number in range(1, len(postings) + 1):
        table.add_column(f"POSTING {number}", ratio=2, overflow="fold")
    for field, expression in spec.fields.items():
        table.add_row(field, Text(clean(expression)), *(Text(_value(posting.get(field))) for posting in postings))
    for option, given in (("--where", spec.where), ("--closed", spec.closed)):
        if given is not None:
            table.add_row(option, Text(clean(given)), *("" for _ in postings))
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PLAIN)
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)


def show_sample(shape: TableShape, sample: Sample) -> None:
    """Print what the map makes of the rows that were looked at."""
    if not sample.looked:
        print(f"{shape.name} has no rows yet.")
        return
    refused = sum(sample.refused.values())
    still = sample.looked - sample.unwanted - sample.closed - refused
    counts = [
        f"{max(0, still):,} open postings",
        f"{sample.closed:,} closed",
        f"{sample.unwanted:,} left out by --where",
    ]
    print(f"Of {sample.looked:,} rows looked at: {', '.join(counts)}, {refused:,} that make no posting.")
    for why, count in list(sample.refused.items())[:_REASONS]:
        print(f"  {count:,} rows make no posting: {clean(why)}")
    for why, count in list(sample.dropped.items())[:_REASONS]:
        print(f"  {count:,} rows go without {clean(why)}")


def show_difference(old: AttachmentSpec, new: AttachmentSpec) -> bool:
    """Print what differs between two maps of one table; returns whether anything does."""
    before, after = _settings(old), _settings(new)
    changed = [name for name in (after | before) if before.get(name) != after.get(name)]
    for name in changed:
        if name in before:
            print(f"- {name} = {clean(before[name])}")
        if name in after:
            print(f"+ {name} = {clean(after[name])}")
    return bool(changed)


def command_of(table: str, given: AttachMap, more: Mapping[str, str | None]) -> str:
    """Return the command line that attaches with just this map, over several lines; `more` are further options."""
    parts = [f"feed attach {_in_shell(table)}"]
    parts += [f"--map {_in_shell(f'{field}={expression}')}" for field, expression in given.fields.items()]
    options = {"--where": given.where, "--closed": given.closed, **more}
    parts += [f"{name} {_in_shell(value)}" if value else name for name, value in options.items() if value is not None]
    return " \\\n  ".join(parts)


def _in_shell(text: str) -> str:
    """Return `text` as one word of a shell: in double quotes where it has single ones, as SQL's constants do."""
    if "'" in text and not re.search(r'["$`\\!]', text):
        return f'"{text}"'
    return shlex.quote(text)


def is_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _settings(spec: AttachmentSpec) -> dict[str, str]:
    settings = {**spec.fields, "--on-error": spec.on_error}
    return settings | {
        name: given for name, given in (("--where", spec.where), ("--closed", spec.closed)) if given is not None
    }


def _value(value: Any) -> str:
    """Return a sample value on one line, cut to what is shown."""
    if value is None:
        return ""
    text = clean(", ".join(map(str, value)) if isinstance(value, list) else str(value))
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
