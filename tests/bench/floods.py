"""Floods: what an attack costs subscribers who do nothing wrong; latency before, during and after each, in one run.

`python -m tests.bench.floods --seconds 5` prints a table and keeps it as tests/bench/results/floods.json. 200 subscribers,
half of them over HTTP/1.1 and half over HTTP/2, get 20 events a second from a service with its default limits (another one
speaks TLS). Every attack is made twice: from one address, to which limits by address apply, and as if from everywhere, where
none does. The service has a core to itself; attackers, readers, writer and Postgres share the others.

What an attacker does to others on its own machine is kept out where it can be. It runs only when nobody else wants its core
(SCHED_IDLE). An event has arrived when the kernel has it at a subscriber's socket, which the service's own core sees to, and
not when the reader has woken up (over TLS, when it has). On its way an event still wakes up the writer and Postgres: "core"
is the p99 of one such wait, on the busier kind of cores. The loopback device, whose queue the attacker fills, is in the
latencies, and not in "core".
"""

import asyncio
import dataclasses
import os
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import asyncpg
import orjson
import typer
from rich.console import Console

from feed.bench.fanout import spec_of
from feed.bench.latency import WARM_UP, Spread, spread
from feed.bench.readers import Readers, reading
from feed.bench.usage import cpu_seconds, resident_bytes
from feed.bench.writer import SqlWriter, new_run, pace, sql_writer
from feed.serving.certificate import self_signed
from tests.bench.attacks import ATTACKS, Done
from tests.bench.contenders import H1, H2
from tests.bench.machine import Cores, cores, described, pin, raise_files
from tests.bench.page import RESULTS
from tests.bench.section import Section
from tests.bench.services import Server, feed, postgres

SUBSCRIBERS = 200
RATE = 20.0
EXEMPT = "127.0.0.1"
"""Where subscribers are, and those attackers to whom no limit by address applies."""
SOURCES = {"one address": "127.0.0.2", "everywhere": EXEMPT}
_SETTLE = 1.0
"""Seconds between an attack and what is measured after it."""


@dataclass(slots=True)
class Watch:
    """A service with its subscribers: what is written reaches all of them, with the times."""

    server: Server
    writer: SqlWriter
    readers: list[Readers]
    meters: list[Process]
    written: int = 0
    answered: dict[int, float] = dataclasses.field(default_factory=dict)

    async def go(self, seconds: float) -> range:
        """Write for so long: the numbers of the events."""
        count = round(seconds * RATE)
        first, self.written = self.written, self.written + count
        self.answered |= await pace(self.writer, first, count, RATE)
        return range(first, self.written)

    async def late(self) -> float | None:
        """The p99 of one wake-up since this was last asked, in ms, on the core where it is worst."""
        found = []
        for one in self.meters:
            cast(asyncio.StreamWriter, one.stdin).write(b"\n")
            found.append(spread(orjson.loads(await _line(one))).p99 or 0.0)
        return max(found)

    async def times(self) -> dict[int, list[float]]:
        """By event: milliseconds from the COMMIT's answer to each subscriber."""
        found: dict[int, list[float]] = {}
        for one in self.readers:
            await one.reach(self.written, 60)
            seen = await one.report(self.written)
            if seen.missing or seen.ended:
                raise RuntimeError(f"{seen.missing} events are missing, {seen.ended} streams ended: {seen.error}")
            for name, took in seen.times.items():
                late = self.answered[int(name)] * 1e6 - seen.stamps[name]
                found.setdefault(int(name), []).extend((each - late) / 1000 for each in took)
        return found


@asynccontextmanager
async def watched(dsn: str, places: Cores, **settings: object) -> AsyncIterator[Watch]:
    """A service whose subscribers are live."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(feed(dsn, places, limits_exempt=f"{EXEMPT}/32", **settings))
        writer = await stack.enter_async_context(sql_writer(dsn, new_run(), close=False))
        found = []
        for mode in (H1, H2):
            spec = spec_of(server.url, writer.run, SUBSCRIBERS // 2, *mode)
            spec = dataclasses.replace(spec, task="time", kernel_times=True, cores=places.load)
            one = await stack.enter_async_context(reading(spec, 1))
            await one.open()
            found.append(one)
        meters = [await stack.enter_async_context(_meter(core)) for core in (places.server[0], places.load[0])]
        watch = Watch(server, writer, found, meters)
        await watch.go(max(1.0, WARM_UP / RATE))
        yield watch


@asynccontextmanager
async def attacking(kind: str, url: str, source: str, places: Cores) -> AsyncIterator[list[Done]]:
    """An attacker at work; what it has done is there on leaving."""
    done: list[Done] = []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.attacks", kind, url, source, stdin=PIPE, stdout=PIPE
    )
    try:
        pin(process.pid, places.load)
        await _line(process)
        yield done
        cast(asyncio.StreamWriter, process.stdin).close()
        done.append(Done(**orjson.loads(await _line(process))))
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def _meter(core: int) -> AsyncIterator[Process]:
    """How late a process wakes up on a core."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.jitter", str(core), stdin=PIPE, stdout=PIPE, limit=16 * 1024 * 1024
    )
    try:
        await _line(process)
        yield process
    finally:
        process.kill()
        await process.communicate()


async def _line(process: Process) -> str:
    async with asyncio.timeout(60):
        return (await cast(asyncio.StreamReader, process.stdout).readline()).decode()


async def measure(watch: Watch, kind: str, source: str, seconds: float, places: Cores) -> dict[str, Any]:
    """One attack: the numbers of the events of each phase, and what the attack was."""
    await watch.late()
    before, calm = await watch.go(seconds), await watch.late()
    cpu, at, memory = cpu_seconds(watch.server.pid), time.monotonic(), resident_bytes(watch.server.pid)
    async with attacking(kind, watch.server.url, SOURCES[source], places) as done:
        await watch.late()
        during, crowded = await watch.go(seconds), await watch.late()
        busy = (cpu_seconds(watch.server.pid) - cpu) / (time.monotonic() - at)
        grown = resident_bytes(watch.server.pid) - memory
    await asyncio.sleep(_SETTLE)
    after = await watch.go(seconds)
    return {
        "attack": kind, "source": source, "before": before, "during": during, "after": after,
        "before_core": calm, "during_core": crowded,
        "busy": round(100 * busy, 1), "grown": round(grown / 2**20, 1), **dataclasses.asdict(done[0]),
    }  # fmt: skip


async def run(kinds: list[str], seconds: float, progress: Console) -> list[dict[str, Any]]:
    """All attacks, one after the other, on the services that they are against."""
    raise_files()
    places = cores()
    pin(os.getpid(), places.load)
    rows: list[dict[str, Any]] = []
    async with postgres(places) as cluster:
        for tls in (False, True):
            wanted = [kind for kind in kinds if ATTACKS[kind].tls is tls]
            if not wanted:
                continue
            admin = await asyncpg.connect(cluster.dsn())
            name = "floods_tls" if tls else "floods"
            await admin.execute(f"CREATE DATABASE {name}")
            await admin.close()
            with tempfile.TemporaryDirectory(prefix="feed-floods-") as folder:
                settings: dict[str, object] = {}
                if tls:
                    certfile, keyfile = self_signed(Path(folder), EXEMPT)
                    settings = {"certfile": certfile, "keyfile": keyfile}
                    os.environ["SSL_CERT_FILE"] = str(certfile)  # whom the readers believe
                async with watched(cluster.dsn(name), places, **settings) as watch:
                    found = []
                    for kind in wanted:
                        for source in SOURCES:
                            progress.print(f"{kind}, from {source}")
                            found.append(await measure(watch, kind, source, seconds, places))
                    times = await watch.times()
                    rows += [_evaluated(row, times) for row in found]
                    log = watch.server.log
                    said = b"" if log is None else log.read_bytes()
                    progress.print(f"{len(said.splitlines())} lines logged, {said.count(b'Traceback')} tracebacks")
    return rows


def _evaluated(row: dict[str, Any], times: dict[int, list[float]]) -> dict[str, Any]:
    """The latencies of each phase in the place of its events, and the ratio of the p99s."""
    for phase in ("before", "during", "after"):
        found: Spread = spread([took for event in row.pop(phase) for took in times[event]])
        row |= {f"{phase}_p50": found.p50, f"{phase}_p99": found.p99, f"{phase}_max": found.max}
    row["ratio"] = round(row["during_p99"] / row["before_p99"], 2)
    return row


def main(
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each phase: before, during and after an attack.")] = 5,
    only: Annotated[str, typer.Option(help=f"Attacks, comma-separated: {', '.join(ATTACKS)}; nothing is kept.")] = "",
) -> None:
    """Measure what attacks cost others."""
    kinds = [kind for kind in only.split(",") if kind] or list(ATTACKS)
    console = Console(highlight=False)
    console.width = max(console.width, 150)
    rows = asyncio.run(run(kinds, seconds, Console(stderr=True, highlight=False)))
    machine = described()
    section = Section(
        "floods",
        f"Milliseconds from COMMIT to {SUBSCRIBERS} subscribers at {RATE:g} events/s, {seconds:g} s each",
        {
            "attack": "attack", "source": "from", "before_p50": "before: p50", "before_p99": "p99", "before_core": "core",
            "during_p50": "during: p50", "during_p99": "p99", "during_core": "core", "during_max": "max",
            "after_p50": "after: p50", "after_p99": "p99", "ratio": "ratio", "made": "connects", "held": "held",
            "busy": "CPU %", "grown": "MB more",
        },
    )  # fmt: skip
    for row in rows:
        section.add(**row)
    section.notes += [
        "Attackers run on the cores of the readers, when nobody else wants them; the service has a core to itself. "
        "Ratio: p99 during to before.",
        "Core: p99 of the time that a process waits for a core, on the busier kind. All share the loopback device, too.",
    ]
    section.show(console)
    if not only:
        page = {"title": section.title, "machine": machine, "rows": section.rows}
        (RESULTS / "floods.json").write_bytes(
            orjson.dumps(page, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        )


if __name__ == "__main__":
    typer.run(main)
