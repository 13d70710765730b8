"""A restart under its subscribers: the service goes, all of them come back to the next one, and no event is lost."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from feed.bench.fanout import spec_of
from feed.bench.latency import Spread, spread
from feed.bench.readers import reading
from feed.bench.usage import cpu_seconds
from feed.bench.writer import Writer, new_run, pace, sql_writer
from feed.database.migrate import migrate
from feed.errors import ConfigurationError, FeedError
from feed.settings.settings import load_settings
from tests.bench.contenders import H1, SHARED, Mode, mode_name
from tests.bench.section import Bench, Section, Target
from tests.bench.services import feed

RATE = 5.0
"""Events a second that are published all the while."""
_CALM = 2.0
"""Seconds of events before the signal and after the last return."""
_PATIENCE = 180.0
"""Seconds in which all subscribers must be back."""


@dataclass(frozen=True, slots=True)
class Restart:
    """What a restart cost: seconds, from SIGTERM until the last subscriber was live again."""

    seconds: float
    back: Spread
    """When subscribers were live again, in milliseconds after SIGTERM."""
    cpu_old: float
    cpu_new: float
    """Seconds of processor in that time, of the process that went and of its successor."""
    refused: int
    """Attempts to come back that failed."""
    events: int
    missing: int
    twice: int


async def section(bench: Bench) -> Section:
    """With a connection for each subscriber, and with a hundred streams a connection."""
    subscribers = 1_000 if bench.quick else 10_000
    page = Section(
        "restart",
        f"{subscribers:,} subscribers move to the successor, {RATE:g} events/s meanwhile",
        {
            "who": "", "http": "", "seconds": "s from SIGTERM until all are live", "p50": "ms p50", "cpu_old": "CPU s, old",
            "cpu_new": "CPU s, new", "refused": "refused", "events": "events", "missing": "missing", "twice": "twice",
        },
    )  # fmt: skip
    drain = load_settings().drain
    hub = load_settings().hub
    for mode in (H1, SHARED):
        bench.say(f"restart: {mode_name(mode)}")
        try:
            found = await measure(bench, subscribers, mode)
        except (TimeoutError, FeedError, RuntimeError) as error:
            page.fail("feed", mode_name(mode), error)
            continue
        kept = Target("every event once", not found.missing and not found.twice)
        page.add(
            kept, who="feed", http=mode_name(mode), p50=found.back.p50,
            **{name: value for name, value in dataclasses.asdict(found).items() if name != "back"},
        )  # fmt: skip
    page.notes.append(
        f"The successor serves already when the signal comes; both are on one core. The drain spreads the goodbyes over up "
        f"to {drain.window:g} s, and each asks its client to wait {hub.retry_min:g} to {hub.retry_max:g} s: so the least is "
        f"about {min(drain.window, subscribers / drain.rate) + hub.retry_max:.0f} s."
    )
    return page


async def measure(bench: Bench, subscribers: int, mode: Mode) -> Restart:
    """One restart; raises TimeoutError where not all come back."""
    dsn = await bench.dsn()
    await migrate(load_settings(), dsn)
    bounds = {"max_streams": max(20_000, 2 * subscribers)}
    async with (
        feed(dsn, bench.cores, **bounds) as old,
        feed(dsn, bench.cores, **bounds) as new,
        sql_writer(dsn, new_run(), close=False) as writer,
    ):
        spec = dataclasses.replace(
            spec_of(old.url, writer.run, subscribers, *mode), task="return", return_port=urlsplit(new.url).port or 0,
            cores=bench.cores.load, patience=_PATIENCE,
        )  # fmt: skip
        async with reading(spec) as readers:
            await readers.open()
            async with _publishing(writer) as written:
                await asyncio.sleep(_CALM)
                first, cpu_old, cpu_new, at = await readers.report(0), cpu_seconds(old.pid), cpu_seconds(new.pid), 0.0
                if first.lived or first.live != subscribers:
                    raise RuntimeError(f"{first.live:,} of {subscribers:,} streams were live: {first.error}")
                used, at = cpu_old, time.monotonic()
                os.kill(old.pid, signal.SIGTERM)
                seen = first
                async with asyncio.timeout(_PATIENCE):
                    while len(seen.lived) < subscribers or seen.live < subscribers:
                        await asyncio.sleep(0.25)
                        with contextlib.suppress(ConfigurationError):  # it has ended
                            used = max(used, cpu_seconds(old.pid))
                        seen = await readers.report(0)
                spent = cpu_seconds(new.pid) - cpu_new
                await asyncio.sleep(_CALM)
            await readers.reach(len(written), _CALM * 5)
            seen = await readers.report(len(written))
    took = [each - at for each in seen.lived]
    return Restart(
        round(max(took), 3), spread([each * 1000 for each in took]), round(used - cpu_old, 2), round(spent, 2),
        seen.refused, len(written), seen.missing, seen.twice,
    )  # fmt: skip


@asynccontextmanager
async def _publishing(writer: Writer) -> AsyncIterator[dict[int, float]]:
    """Publish events for as long as this lasts; by number, when each was committed."""
    written: dict[int, float] = {}
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            written.update(await pace(writer, len(written), 1, RATE))

    task = asyncio.create_task(write(), name="the restart's writer")
    try:
        yield written
    finally:
        stop.set()
        await task
