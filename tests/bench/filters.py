"""Filters: what matching costs, with a thousand of which one in ten matches, and with ten thousand that hardly do."""

import asyncio
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from feed.bench.fanout import calibrated, spec_of
from feed.bench.readers import reading
from feed.bench.usage import cpu_seconds
from feed.bench.writer import marker, new_run, now_us, pace
from feed.database.connect import owned
from feed.settings.settings import load_settings
from tests.bench.contenders import FEED
from tests.bench.section import Bench, Section, Target, at_least
from tests.bench.services import Server

TARGET = 100_000
COST_MS = 1.0
CONCERNED = 5
_INSERT = """
INSERT INTO job (source, external_id, title, company, url, salary_max, currency)
VALUES ('bench', $1, 'Engineer', $2, 'https://acme.example/1', 100, 'EUR')
"""
_WARM_UP = 20
_BUSY = 0.55
_PATIENCE = 20.0


class Writer:
    """Writes postings of chosen companies, with a salary of 100 EUR a year."""

    def __init__(self, insert: object, run: str, company: Callable[[], str]) -> None:
        self.run = run
        self._insert = insert
        self._company = company

    async def write(self, number: int, count: int = 1) -> float:
        for one in range(number, number + count):
            await self._insert.fetch(f"{self.run}-{one}-{now_us()}", self._company())
        return time.monotonic()


@asynccontextmanager
async def writing(dsn: str, company: Callable[[], str]) -> AsyncIterator[Writer]:
    async with owned(load_settings(database_url=dsn).database, dsn, "bench") as connection:
        yield Writer(await connection.prepare(_INSERT), new_run(), company)


async def measure(
    bench: Bench, server: Server, dsn: str, query: str, subscribers: int, company: Callable[[], str], share: float,
    rate: float | None, seconds: float,
) -> dict[str, float]:  # fmt: skip
    """One row: subscribers with a filter each, of which every event concerns `share`."""
    async with writing(dsn, company) as writer:
        spec = spec_of(server.url, writer.run, subscribers, "h2", min(100, subscribers), f"/v1/jobs/stream?{query}")
        spec = dataclasses.replace(spec, cores=bench.cores.load, patience=60, marker=marker(writer.run))
        async with reading(spec) as readers:
            await readers.open()

            if rate is None:
                rate, written = await calibrated(readers, writer, server.pid, _BUSY, share)
            else:
                written = _WARM_UP
                await pace(writer, 0, written, rate)
                await readers.reach(written, _PATIENCE, share)
            events = max(10, round(rate * seconds))
            await asyncio.sleep(0.2)
            first = await readers.report(0)
            before, began = cpu_seconds(server.pid), time.monotonic()
            await pace(writer, written, events, rate)
            await readers.reach(written + events, _PATIENCE, share)
            used = max(cpu_seconds(server.pid) - before, 0.01)
            seen = await readers.report(0)
    deliveries = seen.deliveries - first.deliveries
    return {
        "subscribers": subscribers, "rate": rate, "events": events, "deliveries": deliveries,
        "missing": round(share * subscribers * events) - deliveries, "busy": used / max(seen.at - began, 1e-6),
        "deliveries_per_cpu_second": round(deliveries / used), "ms": used / events * 1000,
        "joined": deliveries / max(1, seen.pieces - first.pieces),
    }  # fmt: skip


async def section(bench: Bench) -> Section:
    """With a filter each, of one in ten an event concerns; then very many, of which it concerns five."""
    some, many = (100, 1_000) if bench.quick else (1_000, 10_000)
    seconds = 1.5 if bench.quick else 4.0
    page = Section(
        "filters",
        "A filter of its own for each subscriber (HTTP/2, 100 streams a connection)",
        {
            "who": "", "deliveries_per_cpu_second": "deliveries per CPU second", "ms": "CPU ms an event", "rate": "events/s",
            "busy": "server busy", "joined": "events a write", "missing": "missing",
        },
    )  # fmt: skip
    tenth = [f"co{number}" for number in range(10)]
    few = [f"co{number}" for number in range(many // CONCERNED)]
    dsn = await bench.dsn()
    async with FEED.start(dsn, bench.cores) as server:
        bench.say(f"filters: {some:,}, one in ten matches")
        equal = await measure(
            bench, server, dsn, "company=co{n%10}&currency=EUR&salary_min=0.{n}", some, lambda: random.choice(tenth), 0.1,
            None, seconds,
        )  # fmt: skip
        # Salaries from 0.9 to 1000: those up to 100 match, and nothing but looking tells which.
        step = f"currency=EUR&salary_min={{n*{1000 // some}}}.5"
        plain = await measure(bench, server, dsn, step, some, lambda: "co1", 0.1, None, seconds)
        bench.say(f"filters: {many:,}, of which an event concerns {CONCERNED}")
        rate = 100.0
        base = await measure(
            bench, server, dsn, f"company=co{{n/{CONCERNED}}}", CONCERNED, lambda: "co0", 1.0, rate, seconds
        )
        wide = await measure(
            bench, server, dsn, f"company=co{{n/{CONCERNED}}}", many, lambda: random.choice(few), CONCERNED / many, rate,
            seconds,
        )  # fmt: skip
    name = f"{some:,} filters, an event concerns {some // 10:,}: "
    page.add(
        at_least(equal["deliveries_per_cpu_second"], TARGET),
        **equal | {"who": name + "equality of a company, and salary"},
    )
    page.add(
        at_least(plain["deliveries_per_cpu_second"], TARGET),
        **plain | {"who": name + "salary alone (all are looked at)"},
    )
    page.add(**base | {"who": f"{CONCERNED} filters, an event concerns {CONCERNED}"})
    page.notes.append(
        f"Of what an event costs with {many:,} filters, {base['ms']:.2f} ms is what it costs with {CONCERNED}: "
        "following the log, encoding, writing."
    )
    page.add(
        Target(f"< {COST_MS:g} ms", wide["ms"] < COST_MS),
        **wide | {"who": f"{many:,} filters, an event concerns {CONCERNED}"},
    )
    return page
