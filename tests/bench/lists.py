"""Lists: the first page by each single filter and each pair that the page can make, at two sizes of the table."""

import asyncio
import itertools
import statistics
import time
from collections.abc import Mapping
from typing import Any

import asyncpg
import httpx

from feed.database.migrate import migrate
from feed.settings.settings import load_settings
from tests.bench.contenders import FEED
from tests.bench.postings import load
from tests.bench.section import Bench, Section, at_most

MEDIAN_MS, WORST_MS, GROWTH, BESIDE_MS = 20.0, 150.0, 2.0, 100.0
_ROUNDS = 3
_FLOOD = 16
"""Clients that ask for what matches nothing."""
_INDEXED = 3600.0
"""Seconds that indexing may take."""

FILTERS: tuple[Mapping[str, str], ...] = (
    {"company": "blue labs"}, {"company": "harbor 499"}, {"company": "nobody & sons"},
    {"country": "united states"}, {"country": "iceland"}, {"country": "atlantis"},
    {"location": "berlin"}, {"location": "new york"}, {"location": "york new"}, {"location": "cedar township"},
    {"workplace": "remote"},
    {"employment_type": "full-time"}, {"employment_type": "apprenticeship"},
    {"seniority": "senior"}, {"seniority": "emperor"},
    {"tag": "python"}, {"tag": "skill-499"}, {"tag": "nonesuch"},
    {"q": "engineer"}, {"q": "s"}, {"q": "new york"}, {"q": "night baker"}, {"q": "zzyzx"},
    {"currency": "USD"}, {"currency": "XAF"},
    {"currency": "EUR", "salary_min": "60000"}, {"currency": "USD", "salary_min": "250000"},
    {"currency": "EUR", "salary_min": "5000000"},
    {"near": "52.52,13.405", "radius_km": "50"}, {"near": "48.3,11.575", "radius_km": "5"},
    {"near": "-40,-120", "radius_km": "500"}, {"near": "40,-100", "radius_km": "3000"},
)  # fmt: skip
"""Each alone, matching many, few or none."""
NOTHING = [{"q": "zzyzx"}, {"tag": "nonesuch", "workplace": "remote"}, {"country": "germany", "currency": "USD"}]


def asked() -> list[dict[str, str]]:
    """Return every single filter, and every pair of filters with different names."""
    pairs = [{**one, **two} for one, two in itertools.combinations(FILTERS, 2) if not one.keys() & two.keys()]
    return [*map(dict, FILTERS), *pairs]


async def first_page(client: httpx.AsyncClient, query: Mapping[str, str]) -> tuple[float, int]:
    """Return how many milliseconds the first page took, and how many postings it had."""
    began = time.perf_counter()
    answer = await client.get("/v1/jobs", params={**query, "limit": "50"})
    took = (time.perf_counter() - began) * 1000
    answer.raise_for_status()
    return took, len(answer.json()["jobs"])


async def every_first_page(client: httpx.AsyncClient, **more: str) -> tuple[dict[str, Any], str]:
    """Return figures over all filters, and in words which one took longest."""
    medians = []
    for query in asked():
        runs = [await first_page(client, {**query, **more}) for _ in range(_ROUNDS)]
        medians.append((statistics.median(took for took, _ in runs), runs[0][1], query))
    times = sorted(took for took, _, _ in medians)
    worst = max(medians, key=lambda one: one[0])
    figures = {
        "filters": len(times), "p50_ms": statistics.median(times), "p99_ms": times[int(len(times) * 0.99)],
        "worst_ms": worst[0], "empty": sum(found == 0 for _, found, _ in medians),
    }  # fmt: skip
    return figures, f"{' & '.join(f'{name}={value}' for name, value in worst[2].items())}, {worst[1]} found"


async def beside_a_flood(client: httpx.AsyncClient, url: str, seconds: float) -> dict[str, Any]:
    """Return what others' first pages take while clients keep asking for what matches nothing."""
    over = asyncio.Event()
    answered = 0

    async def ask(number: int) -> None:
        nonlocal answered
        async with httpx.AsyncClient(base_url=url, timeout=60) as own:
            while not over.is_set():
                await first_page(own, NOTHING[number % len(NOTHING)])
                answered += 1

    times = []
    async with asyncio.TaskGroup() as tasks:
        for number in range(_FLOOD):
            tasks.create_task(ask(number))
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            times.append((await first_page(client, {}))[0])
            times.append((await first_page(client, {"q": "engineer"}))[0])
            await asyncio.sleep(0.02)
        over.set()
    times.sort()
    return {
        "filters": len(times), "p50_ms": statistics.median(times), "p99_ms": times[int(len(times) * 0.99)],
        "worst_ms": times[-1], "flood": answered / seconds,
    }  # fmt: skip


async def indexed(dsn: str) -> float:
    """Wait until every posting is indexed; return the seconds that it took."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "feed"})
    began = time.monotonic()
    try:
        async with asyncio.timeout(_INDEXED):
            while await connection.fetchval("SELECT filled IS NOT NULL FROM search_state"):
                await asyncio.sleep(0.1)
        took = time.monotonic() - began
        await connection.execute("VACUUM ANALYZE search", timeout=_INDEXED)
        return took
    finally:
        connection.terminate()


async def section(bench: Bench) -> Section:
    """A tenth of the postings, then all; then clients that ask for what matches nothing."""
    few, many = (2_000, 20_000) if bench.quick else (100_000, 1_000_000)
    page = Section(
        "lists",
        "Lists: the first page, by each single filter and each pair (one client, medians of three)",
        {
            "who": "", "filters": "filters", "empty": "match nothing", "p50_ms": "p50 ms", "p99_ms": "p99 ms",
            "worst_ms": "worst ms", "growth": "p50, of a tenth", "indexed_s": "indexed in s",
            "flood": "of the flood, lists/s",
        },
    )  # fmt: skip
    before: dict[str, float] = {}
    for size in (few, many):
        dsn = await bench.dsn()
        bench.say(f"lists: {size:,} postings")
        await migrate(load_settings(), dsn)
        await load(dsn, size)
        async with FEED.start(dsn, bench.cores) as server:
            took = await indexed(dsn)
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
                for sort in ("arrived", "posted"):
                    bench.say(f"lists: {size:,} postings, sort={sort}")
                    await first_page(client, {"sort": sort})
                    figures, worst = await every_first_page(client, sort=sort)
                    growth = figures["p50_ms"] / before[sort] if sort in before else None
                    before[sort] = figures["p50_ms"]
                    page.add(
                        at_most(figures["p50_ms"], MEDIAN_MS, " ms"),
                        at_most(figures["worst_ms"], WORST_MS, " ms"),
                        None if growth is None else at_most(growth, GROWTH, " times"),
                        **figures
                        | {"who": f"{size:,} postings, sort={sort}", "growth": growth}
                        | ({"indexed_s": took} if sort == "arrived" else {}),
                    )
                    page.notes.append(f"{size:,} postings, sort={sort}: the slowest was {worst}.")
                if size == many:
                    bench.say("lists: beside a flood")
                    figures = await beside_a_flood(client, server.url, 2 if bench.quick else 10)
                    page.add(
                        at_most(figures["p99_ms"], BESIDE_MS, " ms"),
                        **figures | {"who": f"others, beside {_FLOOD} clients that find nothing"},
                    )
    return page
