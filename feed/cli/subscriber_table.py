"""What a server says of its subscribers, as lines of sums and a table for the terminal."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from feed.cli.ages import age, instant
from feed.cli.messages import clean

_LAGGING = 1_000
"""Positions behind the head from which a stream stands out."""


class SubscriberTable:
    """Renders the last answer of a server, with the rates since the figures of each process before."""

    def __init__(self, url: str, sort: str) -> None:
        self.fault: str | None = None
        """Why the server gave no newer answer."""
        self._url = url
        self._sort = sort
        self._now: Mapping[str, Any] = {}
        self._figures: dict[str, list[Mapping[str, Any]]] = {}  # by process: the newest, after those before where known

    def update(self, answer: Mapping[str, Any]) -> None:
        """Take in the server's next answer. A process that has written nothing new keeps its rates."""
        self._now, self.fault = answer, None
        figures = {}
        for process in answer["processes"]:
            known = self._figures.get(process["id"], [])
            newer = not known or instant(process["seen_at"]) > instant(known[-1]["seen_at"])
            figures[process["id"]] = [*known[-1:], process] if newer else known
        self._figures = figures

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._head()
        yield Text()
        yield self._table()

    def _head(self) -> list[Text]:
        now = self._now
        protocols = " · ".join(f"{name} {count:,}" for name, count in now["protocols"].items())
        first = Text.assemble(
            ("feed top ", "bold"), f"{self._url}  {now['at'][11:19]}Z  ", (f"{now['streams']:,} streams", "bold"),
            f"{f' ({clean(protocols)})' if protocols else ''}  pushed {now['pushed']:,}  pulled {now['pulled']:,}",
        )  # fmt: skip
        rates = self._rates()
        moved = "" if rates is None else f"{rates[0]:,.0f} events/s  {_bytes(rates[1])}/s  "
        lines = [first, Text(f"{moved}largest lag {now['lag']:,}  processes {len(now['processes'])}{self._oldest()}")]
        for process in now["missing"]:
            since = f"{process['seen_at'][11:19]}Z"
            lines.append(
                Text(f"no word from {_place(process, pid=True)} since {since}: its streams are not counted", "bold red")
            )
        if now.get("fault"):
            lines.append(Text(f"only the process that answered is counted: {clean(now['fault'])}", "bold red"))
        if self.fault is not None:
            lines.append(Text(f"as of {now['at'][11:19]}Z: {clean(self.fault)}", "bold red"))
        return lines

    def _oldest(self) -> str:
        """Say how old the oldest figures are, where one can tell."""
        at = instant(self._now["at"])
        oldest = max((at - instant(process["seen_at"]) for process in self._now["processes"]), default=timedelta())
        return f"  figures up to {age(oldest)} old" if oldest >= timedelta(seconds=1) else ""

    def _rates(self) -> tuple[float, float] | None:
        """Return events and bytes a second, summed over the processes whose figures are known of two instants."""
        pairs = [figures for figures in self._figures.values() if len(figures) == 2]
        if not pairs:
            return None
        events = octets = 0.0
        for old, new in pairs:
            seconds = (instant(new["seen_at"]) - instant(old["seen_at"])).total_seconds()
            events += max(0, new["events"] - old["events"]) / seconds
            octets += max(0, new["bytes"] - old["bytes"]) / seconds
        return events, octets

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", expand=False)
        for name in ("ID", "KEY", "ADDRESS", "PROTOCOL"):
            table.add_column(name, no_wrap=True)
        for name in ("AGE", "LAG", "POSITION", "EVENTS", "BYTES"):
            mark = "▼" if name.lower() == self._sort else ""
            table.add_column(f"{name}{mark}", justify="right", no_wrap=True)
        for name in ("MODE", "WHERE", "FILTER"):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        at = instant(self._now["at"])
        for one in self._now["subscribers"]:
            lag, pushed = one["lag"], one["pushed"]
            table.add_row(
                clean(one["id"]), clean(one["key"]), clean(one["address"]) or "-", clean(one["protocol"]),
                age(at - instant(one["since"])), Text(f"{lag:,}", "red" if lag >= _LAGGING else ""),
                f"{one['position']:,}", f"{one['events']:,}", _bytes(one["bytes"]),
                Text("pushed" if pushed else "pulled", "" if pushed else "yellow"), _place(one),
                Text(clean(one["filter"]) or "(everything)", "" if one["filter"] else "dim"),
            )  # fmt: skip
        return table


def _place(process: Mapping[str, Any], *, pid: bool = False) -> str:
    worker = "" if process["worker"] is None else f"/{process['worker']}"
    return f"{clean(process['host'])}{worker}" + (f" (pid {process['pid']})" if pid else "")


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" or count >= 100 else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
