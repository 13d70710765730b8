"""Memory: what an idle subscriber adds to the resident memory of the server, and whether it comes back."""

import asyncio

from feed.bench.readers import reading
from feed.bench.usage import resident_bytes
from tests.bench.contenders import BRIEF, FEED, H1, H2, SHARED, Contender, Mode, mode_name
from tests.bench.section import Bench, Section, Target, at_most
from tests.bench.services import Server

TARGETS = {H1: 30.0, H2: 50.0, SHARED: 22.0}
"""KB."""
_SETTLE = 1.0


async def _held(
    bench: Bench, who: Contender, server: Server, dsn: str, mode: Mode, subscribers: int, rounds: int
) -> list[int]:
    """Resident bytes before any subscriber, then with all of them connected, once a round; none stays between rounds."""
    found = [resident_bytes(server.pid)]
    for _ in range(rounds):
        async with who.writer(server, dsn) as writer:
            spec = who.spec(server, writer.run, subscribers, mode, bench.cores)
            async with reading(spec) as readers:
                await readers.open()
                await asyncio.sleep(_SETTLE)
                found.append(resident_bytes(server.pid))
        await asyncio.sleep(_SETTLE)
    return found


async def section(bench: Bench) -> Section:
    """All contenders on all protocols, then ten thousand subscribers of the feed that come and go."""
    subscribers, most = (200, 1_000) if bench.quick else (2_000, 10_000)
    page = Section(
        "memory",
        f"Resident memory of an idle subscriber ({subscribers:,} connected)",
        {"who": "", "http": "", "kb": "KB each", "note": ""},
    )
    for who in BRIEF[:2] if bench.quick else BRIEF:
        if not bench.wants(who.name):
            continue
        if who.absent:
            page.add(who=who.name, http=who.absent)
            continue
        for mode in who.modes:
            bench.say(f"memory: {who.name}, {mode_name(mode)}")
            dsn = await bench.dsn()
            # A fresh server for each: memory that others have freed would be used first.
            async with who.start(dsn, bench.cores) as server:
                await _held(bench, who, server, dsn, (mode[0], 1), 1, 1)  # what is made once
                before, held = await _held(bench, who, server, dsn, mode, subscribers, 1)
            kb = (held - before) / subscribers / 1024
            page.add(
                at_most(kb, TARGETS[mode], " KB") if who.name == FEED.name else None,
                who=who.name,
                http=mode_name(mode),
                kb=kb,
            )
    bench.say(f"memory: {most:,} subscribers that come and go")
    dsn = await bench.dsn()
    async with FEED.start(dsn, bench.cores) as server:
        start, *rounds = await _held(bench, FEED, server, dsn, SHARED, most, 3)
    grown = (rounds[-1] - rounds[0]) / rounds[0]
    page.add(
        Target("<= 5 % growth", grown <= 0.05),
        who=f"feed, {most:,} connected, three times over",
        http=mode_name(SHARED),
        kb=(rounds[0] - start) / most / 1024,
        note=" / ".join(f"{one / 2**20:,.0f} MB" for one in rounds),
    )
    return page
