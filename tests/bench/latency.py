"""Latency under load: from COMMIT, and from before the write, to the first and the last subscriber."""

import asyncio
import dataclasses

from feed.bench.latency import WARM_UP, Latency, evaluate
from feed.bench.readers import reading
from feed.bench.writer import pace
from feed.errors import FeedError
from tests.bench.contenders import FEED, GENERATOR, H1, H2, NAIVE_HYPERCORN, NCHAN, SHARED, Contender, Mode, mode_name
from tests.bench.section import Bench, Section, at_most
from tests.bench.services import Server

RATE = 50.0
P50, P99 = 8.0, 30.0
"""Milliseconds from COMMIT to the last of a thousand subscribers."""


async def measure(
    bench: Bench, who: Contender, server: Server, dsn: str, mode: Mode, subscribers: int, rate: float, events: int
) -> tuple[Latency, Latency]:
    """Latencies from the answer to the COMMIT (or the POST), and from before the write."""
    async with who.writer(server, dsn) as writer:
        spec = dataclasses.replace(who.spec(server, writer.run, subscribers, mode, bench.cores), task="time")
        async with reading(spec) as readers:
            await readers.open()
            total = events + WARM_UP
            answered = await pace(writer, 0, total, rate)
            await readers.reach(total, 30)
            seen = await readers.report(total)
    await asyncio.sleep(0.3)
    return (
        evaluate(spec, seen, answered, events, rate, "commit"),
        evaluate(spec, seen, {}, events, rate, "request"),
    )


async def section(bench: Bench) -> Section:
    """The feed and the peers that can carry the load at all, or nearly."""
    subscribers, events = (100, 50) if bench.quick else (1_000, 300)
    page = Section(
        "latency",
        f"Milliseconds until the last of {subscribers:,} subscribers has an event, {RATE:g} events/s",
        {
            "who": "", "http": "", "p50": "from COMMIT: p50", "p99": "p99", "max": "max", "first": "first subscriber p50",
            "write_p50": "from before the write: p50", "write_p99": "p99", "missing": "missing", "twice": "twice",
        },
    )  # fmt: skip
    for who, modes in ((FEED, (H1, H2, SHARED)), (GENERATOR, (H1,)), (NCHAN, (H1, H2)), (NAIVE_HYPERCORN, (H1,))):
        if not bench.wants(who.name):
            continue
        if who.absent:
            page.add(who=who.name, http=who.absent)
            continue
        dsn = await bench.dsn()
        async with who.start(dsn, bench.cores) as server:
            for mode in modes:
                bench.say(f"latency: {who.name}, {mode_name(mode)}")
                try:
                    commit, request = await measure(bench, who, server, dsn, mode, subscribers, RATE, events)
                except (TimeoutError, FeedError) as error:
                    page.fail(who.name, mode_name(mode), error)
                    break
                ours = who in (FEED, GENERATOR)
                targets = (at_most(commit.last.p50, P50), at_most(commit.last.p99, P99)) if who is FEED else ()
                page.add(
                    *targets, who=who.name, http=mode_name(mode), missing=commit.missing, twice=commit.twice,
                    p50=commit.last.p50 if ours else None, p99=commit.last.p99 if ours else None,
                    max=commit.last.max if ours else None, first=commit.first.p50 if ours else request.first.p50,
                    write_p50=request.last.p50, write_p99=request.last.p99,
                )  # fmt: skip
    page.notes.append("A peer commits nothing: for it, and its first subscriber, the clock starts before the POST.")
    return page
