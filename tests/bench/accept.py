"""Accepting: new streams per CPU second of the server, from the connection to the first bytes of each stream."""

import asyncio

from feed.bench.readers import reading
from feed.bench.usage import cpu_seconds
from tests.bench.contenders import BRIEF, FEED, H1, H2, SHARED, mode_name
from tests.bench.section import Bench, Section, at_least

TARGETS = {H1: 1_500, H2: 1_000, SHARED: 2_500}


async def section(bench: Bench) -> Section:
    """All contenders on all protocols."""
    subscribers = 200 if bench.quick else 1_000
    page = Section(
        "accept",
        f"Accepting {subscribers:,} streams, one core",
        {"who": "", "http": "", "streams_per_cpu_second": "per CPU second"},
    )
    for who in BRIEF[:2] if bench.quick else BRIEF:
        if not bench.wants(who.name):
            continue
        if who.absent:
            page.add(who=who.name, http=who.absent)
            continue
        dsn = await bench.dsn()
        async with who.start(dsn, bench.cores) as server:
            for mode in who.modes:
                bench.say(f"accepting: {who.name}, {mode_name(mode)}")
                used = 0.0
                for count in (100, subscribers):  # the first are for what is made once
                    async with who.writer(server, dsn) as writer:
                        spec = who.spec(server, writer.run, count, mode, bench.cores)
                        async with reading(spec) as readers:
                            before = cpu_seconds(server.pid)
                            await readers.open()
                            used = cpu_seconds(server.pid) - before
                    await asyncio.sleep(0.5)
                found = round(subscribers / max(used, 0.01))
                target = at_least(found, TARGETS[mode]) if who.name == FEED.name else None
                page.add(target, who=who.name, http=mode_name(mode), streams_per_cpu_second=found)
    return page
