"""Twelve writers, two services, everything breaking: every committed event at every subscriber, once, in one order.

`FEED_TORTURE_SECONDS` sets how long is written (the short run of the suite unless given), `FEED_TORTURE_SEED` repeats the
lots of an earlier run (though not its timing).
"""

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from feed.database.migrate import migrate
from feed.settings import load_settings
from tests.cluster import Cluster
from tests.torture.chaos import Chaos
from tests.torture.ledger import SCHEMA
from tests.torture.services import ServiceProcess
from tests.torture.subscriber import Record, Subscriber
from tests.torture.verdict import judge
from tests.torture.writer import Book, Writer, connect, finish_prepared

SECONDS = float(os.environ.get("FEED_TORTURE_SECONDS", "16"))
SEED = int(os.environ.get("FEED_TORTURE_SEED", "0")) or random.randrange(1, 10**6)
WRITERS = 12
SETTLE = 60.0
"""Seconds after the last write in which everything must have arrived."""


def _subscribers(urls: Any, record: Record) -> list[Subscriber]:
    def paid(body: dict[str, Any]) -> bool:
        return body["currency"] == "EUR" and body["salary_max"] is not None and body["salary_max"] >= 60_000

    plain = [
        Subscriber(f"all {n} h{2 if n % 2 else 1}", urls, record, SEED + n, http2=bool(n % 2), slow=n >= 4)
        for n in range(6)
    ]
    return [
        *plain,
        Subscriber("germany", urls, record, SEED + 10, http2=False,
                   query={"country": "GERMANY"}, wanted=lambda body: body["country"] == "Germany"),
        Subscriber("remote python", urls, record, SEED + 11, http2=True, query={"workplace": "remote", "tag": "python"},
                   wanted=lambda body: body["workplace"] == "remote" and "python" in body["tags"]),
        Subscriber("paid", urls, record, SEED + 12, http2=True,
                   query={"salary_min": 60_000, "currency": "EUR"}, wanted=paid),
    ]  # fmt: skip


@asynccontextmanager
async def running(services: list[ServiceProcess]) -> AsyncIterator[None]:
    """The services, and none of them left behind."""
    try:
        await asyncio.gather(*(service.start() for service in services))
        yield
    finally:
        for service in services:
            await service.end(signal.SIGKILL)


@asynccontextmanager
async def reading(subscribers: list[Subscriber]) -> AsyncIterator[None]:
    """The subscribers, until the end of the block."""
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(one.run(), name=one.name) for one in subscribers]
        yield
        for task in started:
            task.cancel()


@pytest.mark.timeout(SECONDS + 240)
async def test_every_committed_event_reaches_every_subscriber_once_and_in_one_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("FEED_TORTURE_SECONDS", "FEED_TORTURE_SEED"):
        monkeypatch.delenv(name, raising=False)
    cluster = Cluster(deadlock_timeout="100ms", max_wal_size="512MB")
    book, record = Book(), Record()
    with tempfile.TemporaryDirectory(prefix="feed-torture-") as folder:
        services = {
            f"torture_{name}": ServiceProcess(name, cluster.dsn(user=f"torture_{name}"), Path(folder)) for name in "ab"
        }
        urls = lambda: [service.url for service in services.values() if service.url is not None]  # noqa: E731
        subscribers = _subscribers(urls, record)
        chaos = Chaos(cluster, cluster.dsn(), services, SEED)
        try:
            cluster.create().start()
            await migrate(load_settings(), cluster.dsn())
            connection = await connect(cluster.dsn())
            await connection.execute(SCHEMA)
            connection.terminate()
            async with running(list(services.values())), reading(subscribers):
                async with asyncio.timeout(SECONDS + 150):
                    await _disturb(cluster, book, chaos)
                    written = await _settle(cluster, book, record, subscribers)
                for service in services.values():
                    if service.died is not None:
                        record.fault("died", f"service {service.name} ended by itself with {service.died}")
        except BaseException:
            _show(chaos, record, subscribers, services)
            raise
        finally:
            cluster.remove()
        _summarize(book, chaos, record, subscribers, written)
        if record.faults:
            _show(chaos, record, subscribers, services)
        assert not record.faults, f"seed {SEED}: {dict(record.counts)}\n" + "\n".join(record.faults[:10])
        assert not book.prepared
        assert written > 0
        assert len(chaos.happened) == 8


async def _disturb(cluster: Cluster, book: Book, chaos: Chaos) -> None:
    """Write, and break things, for SECONDS; longer, until everything was broken once."""
    enough = asyncio.Event()
    asyncio.get_running_loop().call_later(SECONDS, enough.set)
    calm = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for number in range(WRITERS):
            writer = Writer(number, cluster.dsn(), book, SEED * 100 + number)
            tasks.create_task(writer.run(calm), name=f"writer {number}")
        await chaos.run(enough)
        calm.set()


async def _settle(cluster: Cluster, book: Book, record: Record, subscribers: list[Subscriber]) -> int:
    """Finish what is prepared, wait until it has all arrived, and judge."""
    for one in subscribers:
        one.settle()
    rng = random.Random(SEED)
    connection = await connect(cluster.dsn())
    try:
        await finish_prepared(connection, book, rng, float("inf"))
        for row in await connection.fetch("SELECT gid FROM pg_prepared_xacts"):
            await connection.execute(f"{rng.choice(('COMMIT', 'ROLLBACK'))} PREPARED '{row['gid']}'")
        deadline = time.monotonic() + SETTLE
        behind: list[str] = ["?"]
        while behind and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            waiting, head = await connection.fetchrow("SELECT (SELECT count(*) FROM feed.inbox), head FROM feed.state")
            behind = [f"{one.name} at {one.position}" for one in subscribers if one.position < head]
            if waiting:
                behind.append(f"the inbox with {waiting}")
        for name in behind:
            record.fault("behind", f"{name}, the head is {head}")
        return await judge(connection, book, record, [one for one in subscribers if one.wanted is not None])
    finally:
        connection.terminate()


def _summarize(book: Book, chaos: Chaos, record: Record, subscribers: list[Subscriber], written: int) -> None:
    counts = record.counts
    reconnects = sum(one.connections - 1 for one in subscribers)
    kills = sum(
        chaos.happened[kind] for kind in ("leader killed", "follower killed", "leader stopped", "service drained")
    )
    restarts = sum(chaos.happened[kind] for kind in ("database restarted", "database crashed", "postmaster killed"))
    print(
        f"\ntorture (seed {SEED}, {SECONDS:.0f} s): {book.counts['commits']} commits, {written} changes, "
        f"{len(record.events)} events, {counts['deliveries']} deliveries to {len(subscribers)} subscribers, "
        f"{reconnects} reconnects, {kills} services ended, {restarts} database restarts, "
        f"missed {counts['missed']}, twice {counts['twice']}"
    )
    for title, counted in (("writers", book.counts), ("disturbances", chaos.happened), ("streams", counts)):
        print(f"  {title}: " + ", ".join(f"{name} {count}" for name, count in sorted(counted.items())))


def _show(chaos: Chaos, record: Record, subscribers: list[Subscriber], services: dict[str, ServiceProcess]) -> None:
    """What is needed to find out why."""
    print(f"\nseed {SEED}", "disturbances:", *chaos.story[-40:], "faults:", *record.faults, sep="\n", file=sys.stderr)
    for one in subscribers:
        print(f"{one.name}: last id {one.last_id}, {one.connections} connections", file=sys.stderr)
    for service in services.values():
        print(f"--- the log of service {service.name} ends\n{service.tail()}", file=sys.stderr)
