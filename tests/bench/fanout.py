"""Fan-out: deliveries per CPU second of the server, from COMMIT (or the peer's POST) to the subscriber's socket."""

import asyncio
from dataclasses import asdict
from typing import Any

from feed.bench.fanout import Fanout, Load, run
from feed.bench.readers import reading
from feed.errors import FeedError
from tests.bench.contenders import ALL, FEED, FEED_TLS, H1, H2, NCHAN, NCHAN_TLS, SHARED, Contender, Mode, mode_name
from tests.bench.section import Bench, Section, Target, at_least
from tests.bench.services import Server

BUSY = 0.55
"""The share of its core that a server is kept at: a saturated one joins events, which flatters it."""
TARGETS = {H1: 200_000, H2: 150_000, SHARED: 250_000}
OF_NCHAN_TLS = 0.8
OF_NCHAN = {H1: 1.25, H2: 1.6, SHARED: 4.0}


async def measure(
    bench: Bench, who: Contender, server: Server, dsn: str, mode: Mode, subscribers: int, seconds: float = 3.0
) -> Fanout:
    """One row."""
    async with who.writer(server, dsn) as writer:
        spec = who.spec(server, writer.run, subscribers, mode, bench.cores)
        async with reading(spec) as readers:
            await readers.open()
            load = Load(busy=BUSY, seconds=1.0 if bench.quick else seconds, patience=60)
            found = await run(readers, spec, writer, load, server.pid, lambda _: None)
    await asyncio.sleep(0.3)  # the server is rid of these subscribers before it has others
    return found


async def section(bench: Bench) -> Section:
    """All contenders on all protocols."""
    subscribers = 100 if bench.quick else 500
    page = Section(
        "fanout",
        f"Fan-out to {subscribers} subscribers, one core",
        {
            "who": "", "http": "", "deliveries_per_cpu_second": "per CPU second", "of_feed": "of feed", "rate": "events/s",
            "busy": "server busy", "reader_busy": "readers busy", "joined": "events a write", "event_bytes": "bytes",
            "missing": "missing", "twice": "twice",
        },
    )  # fmt: skip
    found: dict[tuple[str, Mode], dict[str, Any]] = {}
    for who in (*ALL, FEED_TLS, NCHAN_TLS):
        if not bench.wants(who.name):
            continue
        if who.absent:
            page.add(who=who.name, http=who.absent)
            continue
        dsn = await bench.dsn()
        async with who.start(dsn, bench.cores) as server:
            for mode in who.modes:
                bench.say(f"fan-out: {who.name}, {mode_name(mode)}")
                try:
                    found[who.name, mode] = asdict(await measure(bench, who, server, dsn, mode, subscribers))
                except (TimeoutError, FeedError) as error:
                    page.fail(who.name, mode_name(mode), error)
                    break  # whatever it is busy with, it would be in the way of the next
    for (name, mode), row in found.items():
        ours = found.get((FEED.name, mode), row)["deliveries_per_cpu_second"]
        row["of_feed"] = row["deliveries_per_cpu_second"] / ours if (FEED.name, mode) in found else None
        targets: list[Target | None] = []
        if name == FEED.name:
            targets.append(at_least(ours, TARGETS[mode]))
            nchan = found.get((NCHAN.name, mode))
            if nchan is not None and mode in OF_NCHAN:
                times = ours / nchan["deliveries_per_cpu_second"]
                targets.append(Target(f"{times:.2f} x nchan, >= {OF_NCHAN[mode]:g}", times >= OF_NCHAN[mode]))
        secured = found.get((NCHAN_TLS.name, mode))
        if name == FEED_TLS.name and secured is not None:
            times = row["deliveries_per_cpu_second"] / secured["deliveries_per_cpu_second"]
            targets.append(Target(f"{times:.2f} x nchan with TLS, >= {OF_NCHAN_TLS:g}", times >= OF_NCHAN_TLS))
        if name in {NCHAN.name, NCHAN_TLS.name} and mode == H1:
            row["joined"] = None  # its body has no chunks that would tell one write from the next
        page.add(*targets, **row | {"who": name, "http": mode_name(mode)})
    order = [mode_name(mode) for mode in (H1, H2, SHARED)]
    page.rows.sort(key=lambda row: order.index(row["http"]) if row["http"] in order else len(order))
    page.notes.append(
        f"Each server is kept at about {BUSY:.0%} of its core. An event is a COMMIT for the feed, a POST for the others; "
        "what it costs the server to learn of it is part of the figure."
    )
    return page
