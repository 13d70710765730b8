"""Twelve writers, three services, everything breaking: every committed event at every subscriber, once, in one order.

`FEED_TORTURE_SECONDS` sets how long is written (the short run of the suite unless given), `FEED_TORTURE_SEED` repeats the
lots of an earlier run (though not its timing), `FEED_TORTURE_RESULT` names a file for the figures (`make soak`).
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
from feed.settings.settings import load_settings
from tests.cluster import Cluster
from tests.torture.chaos import Chaos
from tests.torture.figures import Figures, progress
from tests.torture.ledger import SCHEMA
from tests.torture.memory import Memory
from tests.torture.services import ENVIRONMENT, ServiceProcess
from tests.torture.stall import KINDS, Staller
from tests.torture.subscriber import Record, Subscriber
from tests.torture.vacancies import attach_own
from tests.torture.verdict import judge
from tests.torture.writer import Book, Writer, connect, finish_prepared

SECONDS = float(os.environ.get("FEED_TORTURE_SECONDS", "36"))
SEED = int(os.environ.get("FEED_TORTURE_SEED", "0")) or random.randrange(1, 10**6)
WRITERS = 12
SETTLE = 60.0
"""Seconds for which, after the last write, nothing may arrive before all of it has."""
RESULT = os.environ.get("FEED_TORTURE_RESULT")


def _services(cluster: Cluster, folder: Path) -> tuple[dict[str, ServiceProcess], ServiceProcess]:
    """Two services that everything happens to, by the role that each connects as, and one that is spared."""
    environment = ENVIRONMENT | {"FEED_LOG_PARTITION": str(max(2000, int(SECONDS) * 20))}
    spared = environment | {"FEED_SEQUENCER": "false"}
    return {
        "torture_a": ServiceProcess(
            "a", cluster.dsn(user="torture_a"), folder, "--workers", "2", environment=environment
        ),
        "torture_b": ServiceProcess(
            "b", cluster.dsn(user="torture_b"), folder, "--self-signed", environment=environment
        ),
    }, ServiceProcess("c", cluster.dsn(), folder, environment=spared)


def _subscribers(urls: Any, record: Record) -> list[Subscriber]:
    def paid(body: dict[str, Any]) -> bool:
        return body["currency"] == "EUR" and body["salary_max"] is not None and body["salary_max"] >= 60_000

    plain = [
        Subscriber(f"all {n} h{2 if n % 2 else 1}", urls, record, SEED + n, http2=bool(n % 2), slow=n >= 4)
        for n in range(6)
    ]
    visitors = [
        Subscriber(f"visitor {n} h{2 if n % 2 else 1}", urls, record, SEED + 20 + n, http2=bool(n % 2), visits=True)
        for n in range(2)
    ]
    return [
        *plain,
        *visitors,
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
async def beside(*some: Subscriber | Staller | Memory) -> AsyncIterator[None]:
    """All of these run, until the end of the block."""
    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(one.run()) for one in some]
        yield
        for task in started:
            task.cancel()


@pytest.mark.timeout(SECONDS * 1.5 + 300)
async def test_every_committed_event_reaches_every_subscriber_once_and_in_one_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("FEED_TORTURE_SECONDS", "FEED_TORTURE_SEED", "FEED_TORTURE_RESULT"):
        monkeypatch.delenv(name, raising=False)
    cluster = Cluster(deadlock_timeout="100ms", max_wal_size="512MB")
    book, record = Book(), Record()
    with tempfile.TemporaryDirectory(prefix="feed-torture-") as folder:
        disturbed, spared = _services(cluster, Path(folder))
        services = [*disturbed.values(), spared]
        urls = lambda: [service.url for service in services if service.url is not None]  # noqa: E731
        subscribers = _subscribers(urls, record)
        stallers = [Staller(kind, urls, record.counts, SEED + 30 + n) for n, kind in enumerate(KINDS)]
        chaos = Chaos(cluster, cluster.dsn(), disturbed, SEED)
        memory = Memory(services, spared)
        try:
            cluster.create().start()
            await migrate(load_settings(), cluster.dsn())
            connection = await connect(cluster.dsn())
            await connection.execute(SCHEMA)
            connection.terminate()
            await attach_own(cluster.dsn())
            async with running(services), beside(*subscribers, *stallers, memory):
                async with asyncio.timeout(SECONDS * 1.5 + 200):
                    await _disturb(cluster, book, chaos, record)
                    written = await _settle(cluster, book, record, subscribers)
                for service in services:
                    if service.died is not None:
                        record.fault("died", f"service {service.name} ended by itself with {service.died}")
                    for crash in service.crashes():
                        record.fault("crashed", f"service {service.name} logged {crash}")
                figures = Figures.of(SEED, SECONDS, book, chaos, record, subscribers, memory, written)
        except BaseException:
            _show(chaos, record, subscribers, services)
            raise
        finally:
            cluster.remove()
        print(figures)
        if RESULT:
            figures.save(Path(RESULT))
        if record.faults:
            _show(chaos, record, subscribers, services)
        assert not record.faults, f"seed {SEED}: {dict(record.counts)}\n" + "\n".join(record.faults[:10])
        assert not book.prepared
        assert written > 0
        assert len(chaos.happened) == chaos.kinds
        for kind in KINDS:
            assert record.counts[f"cut off: {kind}"], f"nobody was cut off: {kind}"


async def _disturb(cluster: Cluster, book: Book, chaos: Chaos, record: Record) -> None:
    """Write, and break things, for SECONDS; longer, until everything was broken once."""
    enough = asyncio.Event()
    asyncio.get_running_loop().call_later(SECONDS, enough.set)
    calm = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(progress(SECONDS, book, chaos, record), name="progress")
        for number in range(WRITERS):
            writer = Writer(number, cluster.dsn(), book, SEED * 100 + number)
            tasks.create_task(writer.run(calm), name=f"writer {number}")
        await chaos.run(enough)
        calm.set()
        telling.cancel()


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
        behind: list[str] = ["?"]
        reached, deadline = -1, time.monotonic() + SETTLE
        while behind and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            if (now := sum(one.position for one in subscribers)) > reached:
                reached, deadline = now, time.monotonic() + SETTLE
            waiting, head = await connection.fetchrow("SELECT (SELECT count(*) FROM feed.inbox), head FROM feed.state")
            behind = [f"{one.name} at {one.position}" for one in subscribers if one.position < head]
            if waiting:
                behind.append(f"the inbox with {waiting}")
        for name in behind:
            record.fault("behind", f"{name}, the head is {head}")
        return await judge(connection, book, record, [one for one in subscribers if one.wanted is not None])
    finally:
        connection.terminate()


def _show(chaos: Chaos, record: Record, subscribers: list[Subscriber], services: list[ServiceProcess]) -> None:
    """What is needed to find out why."""
    print(f"\nseed {SEED}", "disturbances:", *chaos.story[-40:], "faults:", *record.faults, sep="\n", file=sys.stderr)
    for one in subscribers:
        print(f"{one.name}: last id {one.last_id}, {one.connections} connections", file=sys.stderr)
    for service in services:
        print(f"--- the log of service {service.name} ends\n{service.tail()}", file=sys.stderr)
