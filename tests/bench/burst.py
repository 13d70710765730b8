"""The burst: many postings in one transaction, to every subscriber."""

import asyncio
import time

from feed.bench.readers import reading
from feed.bench.usage import cpu_seconds
from tests.bench.contenders import FEED, GENERATOR, H1, H2, NAIVE_HYPERCORN, NCHAN, SHARED, mode_name
from tests.bench.section import Bench, Section, Target, at_least

TARGET = 3_000_000
_PATIENCE = 60


async def section(bench: Bench) -> Section:
    """The feed; and peers as fast as they take events, fewer of them where they are slow."""
    subscribers, events = (100, 2_000) if bench.quick else (500, 10_000)
    page = Section(
        "burst",
        f"A burst to {subscribers} subscribers",
        {
            "who": "", "http": "", "events": "events", "deliveries_per_cpu_second": "per CPU second", "seconds": "seconds",
            "joined": "events a write", "missing": "missing", "twice": "twice",
        },
    )  # fmt: skip
    for who, share in ((FEED, 1.0), (GENERATOR, 1.0), (NCHAN, 0.1), (NAIVE_HYPERCORN, 0.02)):
        if not bench.wants(who.name):
            continue
        if who.absent:
            page.add(who=who.name, http=who.absent)
            continue
        dsn = await bench.dsn()
        count = round(events * share)
        async with who.start(dsn, bench.cores) as server:
            for mode in (H1, H2, SHARED) if who is FEED else (H1,):
                bench.say(f"burst: {who.name}, {mode_name(mode)}")
                async with who.writer(server, dsn) as writer:
                    spec = who.spec(server, writer.run, subscribers, mode, bench.cores)
                    async with reading(spec) as readers:
                        await readers.open()
                        await writer.write(0)
                        await readers.reach(1, _PATIENCE)
                        first = await readers.report(1)
                        before, began = cpu_seconds(server.pid), time.monotonic()
                        await writer.write(1, count)
                        await readers.reach(1 + count, _PATIENCE)
                        used = cpu_seconds(server.pid) - before
                        seen = await readers.report(1 + count)
                deliveries = seen.deliveries - first.deliveries
                joined = None if who is NCHAN else deliveries / max(1, seen.pieces - first.pieces)
                found = round(deliveries / max(used, 0.01))
                targets: list[Target | None] = [at_least(found, TARGET)] if who is FEED else []
                page.add(
                    *targets, who=who.name, http=mode_name(mode), events=count, deliveries_per_cpu_second=found,
                    seconds=seen.at - began, joined=joined,
                    missing=seen.missing, twice=seen.twice, cpu_seconds=used, deliveries=deliveries,
                )  # fmt: skip
                await asyncio.sleep(0.5)
    page.notes.append(
        "The feed gets them in one transaction; the others in one request each, as fast as they take them."
    )
    return page
