"""The page: every measurement side by side with its peers, printed, and kept as JSON and charts (`make bench`)."""

import asyncio
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import asyncpg
import orjson
import typer
from rich.console import Console

from feed.errors import FeedError
from tests.bench import (
    accept,
    burst,
    curves,
    event_cost,
    fanout,
    filters,
    latency,
    lists,
    memory,
    replays,
    restart,
    selfcheck,
    stalls,
    storm,
    threads,
    writers_cost,
)
from tests.bench.machine import ROOT, cores, described, pin, postgres_version, raise_files
from tests.bench.section import Bench, Section, show_missed
from tests.bench.services import postgres

RESULTS = ROOT / "tests" / "bench" / "results"
SECTIONS = {
    "selfcheck": selfcheck.section,
    "fanout": fanout.section,
    "burst": burst.section,
    "filters": filters.section,
    "latency": latency.section,
    "event_cost": event_cost.section,
    "accept": accept.section,
    "memory": memory.section,
    "storm": storm.section,
    "restart": restart.section,
    "stalls": stalls.section,
    "replays": replays.section,
    "flask": threads.section,
    "writers": writers_cost.section,
    "lists": lists.section,
    "curves": curves.section,
}
_NARROWEST = 150
"""Columns that the tables need."""


async def run(
    names: list[str], who: tuple[str, ...], quick: bool, results: Path, console: Console, progress: Console
) -> tuple[dict[str, Any], list[Section]]:
    """Measure, one section after the other; each is printed when it is there."""
    machine = described()
    raise_files()
    everywhere, places = os.sched_getaffinity(0), cores()
    found = []
    async with postgres(places) as cluster:
        machine["postgres"] = await postgres_version(cluster.dsn())
        numbers = itertools.count(1)

        async def dsn() -> str:
            name = f"bench_{next(numbers)}"
            admin = await asyncpg.connect(cluster.dsn())
            await admin.execute(f"CREATE DATABASE {name}")
            await admin.close()
            return cluster.dsn(name)

        began = time.monotonic()
        bench = Bench(
            dsn, places, quick, lambda text: progress.print(f"[{time.monotonic() - began:4.0f} s] {text}"), results,
            _made(machine), who,
        )  # fmt: skip
        for number, name in enumerate(names, 1):
            bench.say(f"section {number} of {len(names)}: {name}")
            pin(os.getpid(), tuple(everywhere) if name == "writers" else places.load)
            try:
                section = await SECTIONS[name](bench)
            except (FeedError, TimeoutError, RuntimeError) as error:
                progress.print(f"{name} could not be measured: {str(error) or type(error).__name__}", style="bold")
                continue
            section.show(console)
            found.append(section)
        bench.say("done")
    return machine, found


def _made(machine: dict[str, Any]) -> str:
    """Where and when, on one line."""
    return (
        f"commit {machine['commit']}, {machine['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, "
        f"Linux {machine['kernel']}, Python {machine['python']}"
    )


def main(
    only: Annotated[str, typer.Option(help=f"Sections, comma-separated: {', '.join(SECTIONS)}.")] = "",
    who: Annotated[
        str,
        typer.Option(
            help="Who takes part, comma-separated, by the beginnings of their names: feed,nchan; all unless given."
        ),
    ] = "",
    quick: Annotated[
        bool, typer.Option("--quick", help="Small and short, to see that all runs; nothing is kept.")
    ] = False,
    self_check: Annotated[
        bool, typer.Option("--self-check", help="Only whether the readers could be the bottleneck.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one line of JSON.")] = False,
) -> None:
    """Measure the feed and its peers on this machine: one page in about half an hour.

    What was measured is kept in tests/bench/results, with the commit and the machine: page.json, fanout.svg and
    latency.svg. A run of some sections replaces those alone.
    """
    names = ["selfcheck"] if self_check else [name for name in only.split(",") if name] or list(SECTIONS)
    for name in names:
        if name not in SECTIONS:
            raise typer.BadParameter(f"{name} is none of {', '.join(SECTIONS)}", param_hint="--only")
    wanted = tuple(name for name in who.split(",") if name)
    progress = Console(stderr=True, highlight=False)
    console = Console(highlight=False, stderr=as_json)
    console.width = max(console.width, _NARROWEST)
    with tempfile.TemporaryDirectory(prefix="feed-bench-results-") as scratch:
        results = Path(scratch) if quick else RESULTS
        machine, sections = asyncio.run(run(names, wanted, quick, results, console, progress))
        found = {one.name: {"title": one.title, "machine": machine, "rows": one.rows} for one in sections}
        if not quick:
            _keep(found)
    show_missed(sections, console)
    console.print(_made(machine))
    if as_json:
        print(orjson.dumps(found).decode())


def _keep(found: dict[str, Any]) -> None:
    """Put the sections into page.json, where those of other runs stay with the machine they were made on."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    page = RESULTS / "page.json"
    kept = orjson.loads(page.read_bytes()) if page.exists() else {}
    page.write_bytes(orjson.dumps(kept | found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
