"""The figures of a run: told while it goes, summed up at its end, kept as JSON where asked for."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import orjson

from tests.torture.chaos import Chaos
from tests.torture.memory import Memory
from tests.torture.subscriber import Record, Subscriber
from tests.torture.writer import Book

_MIB = 2**20
_KILLS = ("leader killed", "follower killed", "worker killed", "master killed")
_RESTARTS = ("service drained", "service replaced")
_DATABASE = ("database restarted", "database crashed", "postmaster killed")


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run came to; memory in MiB."""

    at: str
    seed: int
    seconds: float
    commits: int
    changes: int
    events: int
    deliveries: int
    subscribers: int
    reconnects: int
    kills: int
    restarts: int
    stops: int
    database_restarts: int
    missed: int
    twice: int
    faults: int
    memory_most: float
    """Of any process of any service."""
    memory_quarters: list[float]
    """Of the service that was left alone: the means over the four quarters of the time."""
    writers: dict[str, int]
    disturbances: dict[str, int]
    streams: dict[str, int]

    @classmethod
    def of(
        cls, seed: int, seconds: float, book: Book, chaos: Chaos, record: Record, subscribers: Sequence[Subscriber],
        memory: Memory, written: int,
    ) -> Self:  # fmt: skip
        """Sum up a run."""
        counts = record.counts
        return cls(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            seed=seed,
            seconds=seconds,
            commits=book.counts["commits"],
            changes=written,
            events=len(record.events),
            deliveries=counts["deliveries"],
            subscribers=len(subscribers),
            reconnects=sum(one.connections - 1 for one in subscribers),
            kills=_sum(chaos.happened, _KILLS),
            restarts=_sum(chaos.happened, _RESTARTS),
            stops=chaos.happened["leader stopped"],
            database_restarts=_sum(chaos.happened, _DATABASE),
            missed=counts["missed"],
            twice=counts["twice"],
            faults=len(record.faults),
            memory_most=round(memory.most / _MIB, 1),
            memory_quarters=[round(memory.quarter(number) / _MIB, 1) for number in range(1, 5)],
            writers=dict(sorted(book.counts.items())),
            disturbances=dict(sorted(chaos.happened.items())),
            streams=dict(sorted(counts.items())),
        )

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    def __str__(self) -> str:
        lines = [
            f"\ntorture (seed {self.seed}, {self.seconds:.0f} s): {self.commits:,} commits, {self.events:,} events, "
            f"{self.deliveries:,} deliveries to {self.subscribers} subscribers, {self.reconnects:,} reconnects",
            f"  {self.kills} kills and {self.restarts} restarts of services, {self.stops} stopped for a while, "
            f"{self.database_restarts} database restarts: missed {self.missed}, twice {self.twice}",
            f"  memory: {self.memory_most} MiB at the most in any process; "
            f"of the one that was left alone, by quarters of the time: {', '.join(map(str, self.memory_quarters))} MiB",
        ]
        for title, counted in (
            ("writers", self.writers),
            ("disturbances", self.disturbances),
            ("streams", self.streams),
        ):
            lines.append(f"  {title}: " + ", ".join(f"{name} {count:,}" for name, count in counted.items()))
        return "\n".join(lines)


async def progress(seconds: float, book: Book, chaos: Chaos, record: Record) -> None:
    """A line every few seconds for whoever watches on a terminal."""
    if not sys.stdout.isatty():
        return
    began = time.monotonic()
    print()
    while True:
        print(
            f"{time.monotonic() - began:6.0f} of {seconds:.0f} s  {len(record.events):9,} events  "
            f"{record.counts['deliveries']:11,} deliveries  {book.counts['commits']:8,} commits  "
            f"{chaos.happened.total():4} disturbances (now: {chaos.now})  {len(record.faults)} faults",
            flush=True,
        )
        await asyncio.sleep(min(10, max(2, seconds / 60)))


def _sum(counted: Counter[str], kinds: Sequence[str]) -> int:
    return sum(counted[kind] for kind in kinds)
