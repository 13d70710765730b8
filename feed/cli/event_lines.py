"""Events as lines for a reader: time, mark, title, company, place, pay; without a terminal also the date and the URL."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from feed.cli.messages import clean
from feed.client.event import StreamEvent

# What can stand in a link without ending it or steering the terminal.
_HARMLESS = re.compile(r"https?://[!-~]+")
_MARKS = {"posted": ("+", "bold green"), "updated": ("~", "yellow"), "closed": ("-", "red")}


class Stdout(Console):
    """The console behind stdout; a reader who has gone away is a BrokenPipeError, as everywhere else."""

    def on_broken_pipe(self) -> None:
        """Let the error through, where rich would end the process."""
        raise BrokenPipeError


class EventLines:
    """Prints postings to `console`: hanging, coloured columns on a terminal, else one plain line each."""

    def __init__(self, console: Console, now: Callable[[], datetime] = datetime.now) -> None:
        self._console = console
        self._now = now

    def show(self, event: StreamEvent) -> None:
        """Print the posting that `event` carries; raises BrokenPipeError when nobody reads on."""
        mark, style = _MARKS[event.kind]
        plain = not self._console.is_terminal
        at = self._time(event.data.get("updated_at"), dated=plain)
        if plain:
            text = self._text(event)
            if url := clean(str(event.data.get("url") or "")):
                text.append(f" · {url}")  # which is a link behind the title on a terminal
            self._console.print(Text(f"{at} {mark} ").append_text(text), soft_wrap=True)
            return
        line = Table.grid(padding=(0, 1))
        line.add_column(style="dim", no_wrap=True)
        line.add_column(style=style, no_wrap=True)
        line.add_column(overflow="fold")
        line.add_row(at, mark, self._text(event))
        self._console.print(line)

    def _text(self, event: StreamEvent) -> Text:
        job = event.data
        title = clean(str(job.get("title") or "(no title)"))
        parts = [Text(title, style=_title_style(event.kind, str(job.get("url") or "")))]
        parts += [
            Text(clean(str(said)), style=style)
            for said, style in (
                (job.get("company"), "cyan"),
                (job.get("location"), ""),
                (pay(job), "green"),
                (f"closed: {job['reason']}" if job.get("reason") else None, "red"),
            )
            if said
        ]
        return Text(" · ").join(parts)

    def _time(self, text: object, *, dated: bool) -> str:
        """Return an RFC 3339 time in the local zone, with its date if `dated` or if that is not today."""
        try:
            at = datetime.fromisoformat(str(text)).astimezone()
        except ValueError:
            return "---------- --:--:--" if dated else "--:--:--"
        return f"{at:%Y-%m-%d %H:%M:%S}" if dated or at.date() != self._now().date() else f"{at:%H:%M:%S}"


def pay(job: dict[str, Any]) -> str:
    """Return a posting's salary: `70,000-90,000 EUR/year`, or "" without one."""
    bounds = [job[name] for name in ("salary_min", "salary_max") if isinstance(job.get(name), int | float)]
    if not bounds:
        return ""
    amount = "-".join(dict.fromkeys(f"{bound:,.2f}".removesuffix(".00") for bound in bounds))
    period = f"/{job['salary_period']}" if job.get("salary_period") else ""
    return f"{amount} {job.get('currency') or ''}".rstrip() + period


def _title_style(kind: str, url: str) -> str:
    """Bold, struck out once closed; a link where the terminal can and the address is one that cannot harm."""
    style = "bold strike" if kind == "closed" else "bold"
    return f"{style} link {url}" if _HARMLESS.fullmatch(url) else style
