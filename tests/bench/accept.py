"""Accepting: new streams per CPU second of the server, from the connection to the first bytes of each stream."""

import asyncio

from feed.bench.readers import reading
from feed.bench.usage import cpu_seconds
from tests.bench.contenders import (
    BRIEF,
    FEED,
    H1,
    H2,
    NAIVE_UVICORN,
    SHARED,
    WITH_KEYS,
    WITH_TOKENS,
    Contender,
    Mode,
    mode_name,
)
from tests.bench.section import Bench, Section, Target
from tests.bench.services import Server

OF_UVICORN = {H1: 5.0, H2: 1.5, SHARED: 4.0}
"""Times what queues and sse-starlette take on uvicorn, which speaks HTTP/1.1 only."""
OF_PLAIN = 0.8
"""What is left where each stream is opened with a credential, which is the same one for all."""
_FIRST = 100
"""Streams opened before those that count, for what is made once."""


async def section(bench: Bench) -> Section:
    """All contenders on all protocols."""
    subscribers = 200 if bench.quick else 1_000
    page = Section(
        "accept",
        f"Accepting {subscribers:,} streams, one core",
        {"who": "", "http": "", "streams_per_cpu_second": "per CPU second", "of_uvicorn": "of uvicorn's"},
    )
    found: dict[tuple[str, Mode], int] = {}
    peers = (NAIVE_UVICORN,) if bench.quick else BRIEF[1:]
    for who in (FEED, WITH_KEYS, WITH_TOKENS, *peers):
        if not bench.wants(who.name):
            continue
        if who.absent:
            page.add(who=who.name, http=who.absent)
            continue
        dsn = await bench.dsn()
        async with who.start(dsn, bench.cores) as server:
            for mode in who.modes:
                bench.say(f"accepting: {who.name}, {mode_name(mode)}")
                found[who.name, mode] = await measure(bench, who, server, dsn, mode, subscribers)
    least = found.get((NAIVE_UVICORN.name, H1))
    for (name, mode), each in found.items():
        times = None if least is None else each / least
        target = None
        if name == FEED.name and times is not None:
            target = Target(f"{times:.2f} x uvicorn's, >= {OF_UVICORN[mode]:g}", times >= OF_UVICORN[mode])
        elif name in (WITH_KEYS.name, WITH_TOKENS.name) and (FEED.name, mode) in found:
            of_plain = each / found[FEED.name, mode]
            target = Target(f"{of_plain:.2f} x without, >= {OF_PLAIN:g}", of_plain >= OF_PLAIN)
        page.add(target, who=name, http=mode_name(mode), streams_per_cpu_second=each, of_uvicorn=times)
    return page


async def measure(bench: Bench, who: Contender, server: Server, dsn: str, mode: Mode, subscribers: int) -> int:
    """Streams per CPU second."""
    used = 0.0
    for count in (_FIRST, subscribers):
        async with who.writer(server, dsn) as writer:
            spec = who.spec(server, writer.run, count, mode, bench.cores)
            async with reading(spec) as readers:
                before = cpu_seconds(server.pid)
                await readers.open()
                used = cpu_seconds(server.pid) - before
        await asyncio.sleep(0.5)
    return round(subscribers / max(used, 0.01))
