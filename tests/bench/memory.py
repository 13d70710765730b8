"""Memory: what an idle subscriber adds to the resident memory of the server, and whether it comes back."""

import asyncio

from feed.bench.readers import reading
from feed.bench.usage import resident_bytes
from feed.settings.settings import load_settings
from tests.bench.contenders import BRIEF, FEED, H1, H2, SHARED, Contender, Mode, mode_name
from tests.bench.replaying import BROAD, NARROW, fill, replay
from tests.bench.section import Bench, Section, Target, at_most
from tests.bench.services import Server

TARGETS = {H1: 30.0, H2: 50.0, SHARED: 22.0}
"""KB."""
START, WHOLE = 100 * 2**20, 200 * 2**20
"""Bytes of a process that has just started, and of one whose caches are full."""
WORK = 25 * 2**20
"""Bytes for what is being read, decoded and sent (deploy/README.md, "How large")."""
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
    await _replay_everything(bench, page)
    return page


async def _replay_everything(bench: Bench, page: Section) -> None:
    """Write a long log and replay it by ten filters: all that is cached is then as large as it gets."""
    postings = 50_000 if bench.quick else 1_000_000
    dsn = await bench.dsn()
    async with FEED.start(dsn, bench.cores) as server:
        start = resident_bytes(server.pid)
        bench.say(f"memory: {postings:,} postings are written")
        await fill(dsn, postings)
        written = most = resident_bytes(server.pid)
        for query in (BROAD, *NARROW):
            bench.say(f"memory: replay by {query}")
            await replay(server.url, query)
            most = max(most, resident_bytes(server.pid))
    settings = load_settings()
    bounds = settings.hub.ring_bytes + settings.replay.cache + settings.replay.joined_bytes + WORK
    for who, found, bound in (
        ("feed, at its start", start, START),
        (f"feed, {postings:,} postings written", written, WHOLE),
        (f"... and replayed by {len(NARROW) + 1} filters", most, WHOLE),
        ("... of that, beyond the start (deploy/README.md)", most - start, bounds),
    ):
        page.add(
            Target(f"<= {bound / 2**20:,.0f} MB", found <= bound), who=who, note=f"{found / 2**20:,.0f} MB"
        )  # fmt: skip
