"""A section of the page: rows of figures with their targets, as a table and as JSON."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tests.bench.machine import Cores


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should be, in words."""

    text: str
    met: bool

    def __str__(self) -> str:
        return f"{self.text}: {'met' if self.met else 'MISSED'}"


def at_least(value: float | None, bound: float, unit: str = "") -> Target:
    return _bounded(f">= {shown(bound)}{unit}", value, unit, met=value is not None and value >= bound)


def at_most(value: float | None, bound: float, unit: str = "") -> Target:
    return _bounded(f"<= {shown(bound)}{unit}", value, unit, met=value is not None and value <= bound)


def _bounded(text: str, value: float | None, unit: str, *, met: bool) -> Target:
    """A target that says what the figure was where it was missed."""
    return Target(text if met else f"{text} (was {'unknown' if value is None else shown(value) + unit})", met)


@dataclass(slots=True)
class Section:
    """What one measurement found: `columns` name what of a row goes into the table, and how it is headed."""

    name: str
    title: str
    columns: Mapping[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *targets: Target | None, **row: Any) -> None:
        """One row more, with the targets that concern it."""
        self.rows.append(row | {"targets": [{"text": one.text, "met": one.met} for one in targets if one is not None]})

    def fail(self, who: str, mode: str, error: BaseException) -> None:
        """A row that could not be had."""
        self.rows.append({"who": who, "http": mode, "failed": str(error) or "stopped answering", "targets": []})

    def show(self, console: Console) -> None:
        """Print it."""
        rows = [row for row in self.rows if "failed" not in row]
        wrong = [row for row in rows if row.get("missing") or row.get("twice")]
        columns = {name: head for name, head in self.columns.items() if wrong or name not in ("missing", "twice")}
        table = Table(title=self.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for number, head in enumerate(columns.values()):
            table.add_column(head, justify="right" if number else "left", no_wrap=number < 2)
        aimed = any(row["targets"] for row in rows)
        if aimed:
            table.add_column("target")
        for row in rows:
            targets = "; ".join(f"{one['text']} {'met' if one['met'] else 'MISSED'}" for one in row["targets"])
            table.add_row(*(shown(row.get(name)) for name in columns), *([targets] if aimed else []))
        console.print(table)
        if "missing" in self.columns and not wrong:
            console.print("  Every event reached every subscriber, once.")
        for row in self.rows:
            if "failed" in row:
                console.print(f"  {row['who']}, {row['http']}: {row['failed']}", soft_wrap=True)
        for note in self.notes:
            console.print(f"  {note}", soft_wrap=True)
        console.print()


def show_missed(sections: Sequence[Section], console: Console) -> None:
    """Print the targets that were missed, or that none was, and what could not be measured."""
    missed = [
        f"{section.name}: {row.get('who', '')}{', ' + row['http'] if row.get('http') else ''}: {target['text']}"
        for section in sections
        for row in section.rows
        for target in row["targets"]
        if not target["met"]
    ]
    failed = [
        f"{section.name}: {row['who']}, {row['http']}: {row['failed']}"
        for section in sections
        for row in section.rows
        if "failed" in row
    ]
    for title, lines in (("Targets missed", missed), ("Not measured", failed)):
        console.print(f"{title}: {len(lines) or 'none'}", style="bold")
        for line in lines:
            console.print(f"  {line}", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Bench:
    """What every section is handed."""

    dsn: Callable[[], Awaitable[str]]
    """Makes a database of its own and returns its DSN."""
    cores: Cores
    quick: bool
    say: Callable[[str], None]
    results: Path
    made: str
    """When, from what and on what, for the charts."""
    who: tuple[str, ...] = ()
    """Beginnings of the names of those to measure; empty: all."""

    def wants(self, name: str) -> bool:
        """Whether somebody is to be measured."""
        return not self.who or name.startswith(self.who)


def shown(value: Any) -> str:
    """A figure as people read it."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float() if abs(value) < 100 and value != int(value):
            return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
        case int() | float():
            return f"{value:,.0f}"
        case _:
            return str(value)
