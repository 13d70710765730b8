"""An event's own cost: the processor time of the service from COMMIT to hub, with nobody to send it to."""

from feed.bench.usage import cpu_seconds
from feed.bench.writer import pace
from tests.bench.contenders import FEED
from tests.bench.section import Bench, Section, at_most

RATE = 100.0
"""Commits a second, of one posting each."""
TARGET = 0.6
"""Milliseconds."""
_WARM_UP = 200
"""Events before the measurement."""


async def section(bench: Bench) -> Section:
    """One posting a COMMIT, at a pace; sequencer, tailer and hub are all in the one process."""
    events = 200 if bench.quick else 2_000
    page = Section(
        "event_cost",
        f"An event's own cost: one posting a COMMIT, {RATE:g} a second, no subscribers",
        {"who": "", "ms": "ms of CPU an event"},
    )
    bench.say("event cost")
    dsn = await bench.dsn()
    async with FEED.start(dsn, bench.cores) as server, FEED.writer(server, dsn) as writer:
        await pace(writer, 0, _WARM_UP, RATE)
        before = cpu_seconds(server.pid)
        await pace(writer, _WARM_UP, events, RATE)
        ms = (cpu_seconds(server.pid) - before) / events * 1000
    page.add(at_most(ms, TARGET, " ms"), who="feed", ms=ms)
    return page
