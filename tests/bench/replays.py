"""Replays of a long log: what a narrow filter costs the service, and what one long replay costs those who are live."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from feed.bench.usage import cpu_seconds
from feed.errors import FeedError
from tests.bench.contenders import FEED, H1
from tests.bench.latency import RATE, measure
from tests.bench.replaying import BROAD, NARROW, fill, replay
from tests.bench.section import Bench, Section, Target, at_most
from tests.bench.services import Server

SHARE = 0.2
"""Of the processor time of a replay of everything, that a narrow filter may take."""
SLOWER = 2.0
"""How many times the idle p99 others' may be while somebody replays."""
_SUBSCRIBERS = 10


@asynccontextmanager
async def _replaying(server: Server, query: str) -> AsyncIterator[None]:
    """One client that replays the log again and again."""

    async def again() -> None:
        while True:
            await replay(server.url, query)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(again(), name="replays")
        try:
            yield
        finally:
            task.cancel()


async def section(bench: Bench) -> Section:
    """Replays one after the other, then subscribers that are live beside one."""
    postings, events = (20_000, 50) if bench.quick else (1_000_000, 300)
    page = Section(
        "replays",
        f"Replays of {postings:,} events by one client, HTTP/1.1",
        {"who": "", "events": "events", "cpu": "CPU seconds", "share": "of everything", "p50": "ms p50", "p99": "p99"},
    )  # fmt: skip
    dsn = await bench.dsn()
    async with FEED.start(dsn, bench.cores) as server:
        bench.say(f"replays: {postings:,} postings are written")
        await fill(dsn, postings)
        everything = 0.0
        for query in ("", BROAD, *NARROW):
            bench.say(f"replays: {query or 'everything'}")
            before = cpu_seconds(server.pid)
            found = await replay(server.url, query)
            cpu = cpu_seconds(server.pid) - before
            everything = everything or cpu
            share = cpu / everything
            page.add(
                at_most(share, SHARE) if query in NARROW else None, who=query or "everything", events=found.events,
                cpu=cpu, share=share,
            )  # fmt: skip
        idle = 0.0
        for query in (None, "", NARROW[-1]):
            who = "live, nobody replays" if query is None else f"live, somebody replays {query or 'everything'}"
            bench.say(f"replays: {who}")
            try:
                if query is None:
                    commit, _ = await measure(bench, FEED, server, dsn, H1, _SUBSCRIBERS, RATE, events)
                    idle = commit.last.p99
                else:
                    async with _replaying(server, query):
                        commit, _ = await measure(bench, FEED, server, dsn, H1, _SUBSCRIBERS, RATE, events)
            except (TimeoutError, FeedError) as error:
                page.fail(who, "HTTP/1.1", error)
                continue
            slower = commit.last.p99 / idle
            target = Target(f"<= {SLOWER:g} x idle", slower <= SLOWER)
            page.add(None if query is None else target, who=who, p50=commit.last.p50, p99=commit.last.p99)
    return page
