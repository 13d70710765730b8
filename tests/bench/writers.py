"""What the feed costs those who write: `python -m tests.bench.writers` (`make bench-writers`).

Postgres runs with fsync on, its data in memory where there is room (/dev/shm), and each flush of its log is slowed down,
so that the delay is the whole of the disk on any machine. There are two ways, and the first line printed shows, by one
client without the delay and with it, that it holds:

- `preload`: a library put in front of the C library's has `fdatasync` sleep first. This is a slow disk to the letter: who
  commits during a flush waits for the next. It needs a C compiler.
- `commit_delay`: with `commit_siblings=0` a backend that is about to flush sleeps so long while it holds the lock that all
  others need (XLogFlush in xlog.c). It is kinder than a disk, since who commits during the sleep is flushed with it; more
  transactions a second then leave less of the processors to the feed.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import asyncpg
import orjson
import typer
from rich.console import Console
from rich.table import Table

from feed.database.attach import attach
from feed.database.migrate import migrate
from feed.database.table_shape import describe
from feed.model.attachment import AttachmentSpec
from feed.settings.settings import load_settings
from tests.cluster import Cluster
from tests.torture.services import ServiceProcess

VARIANTS = {
    "plain": "no triggers",
    "capture": "the feed's triggers alone",
    "service": "the whole service",
    "notify": "for contrast: NOTIFY a row",
    "own": "a table of somebody else's, without feed",
    "attached": "the same table, attached, and the whole service",
}
SERVED = ("service", "attached")
"""Those that the whole service runs for."""
BULK = ("plain", "capture", "own", "attached")
"""Those that are loaded with many rows at once, while no service runs."""
MEMORY = Path("/dev/shm")
ROOM = 3 * 1024**3
"""Bytes that must be free there."""
TARGET = 0.9
BULK_TARGET = 2.0

_SLOW = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
int fdatasync(int fd) {
  static int (*real)(int);
  if (!real) real = dlsym(RTLD_NEXT, "fdatasync");
  usleep(DELAY);
  return real(fd);
}
"""

_COLUMNS = (
    "source, title, company, url, location, country, workplace, employment_type, tags, salary_min, salary_max, currency"
)
_VALUES = (
    "'bench', 'Site Reliability Engineer ' || {n}, 'Acme', 'https://acme.example/jobs/' || {n}, 'Berlin, Germany', "
    "'Germany', 'hybrid', 'full-time', '{{python,postgres}}', 70000, 90000, 'EUR'"
)

# The same posting in a table of somebody else's: with a key that the database makes, as an application would have it.
_OWN = """
CREATE TABLE public.vacancies (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), headline text NOT NULL, firm text NOT NULL, link text NOT NULL, place text,
  land text, model text, contract text, skills text[] NOT NULL DEFAULT '{}', pay_from numeric, pay_to numeric, money text,
  active boolean NOT NULL DEFAULT true, created_at timestamptz NOT NULL DEFAULT clock_timestamp())
"""
_OWN_COLUMNS = "headline, firm, link, place, land, model, contract, skills, pay_from, pay_to, money"
_OWN_FIELDS = {
    "title": "headline", "company": "firm", "url": "link", "location": "place", "country": "land", "workplace": "model",
    "employment_type": "contract", "tags": "skills", "salary_min": "pay_from", "salary_max": "pay_to", "currency": "money",
    "posted_at": "created_at",
}  # fmt: skip

_NOTIFY = """
CREATE FUNCTION feed.loud() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('loud', NEW.id::text); RETURN NULL; END $$;
CREATE TRIGGER loud AFTER INSERT ON feed.job FOR EACH ROW EXECUTE FUNCTION feed.loud();
"""


@dataclass(frozen=True, slots=True)
class Target:
    """A table that is written to, its columns, and SQL for the values of row `{n}`."""

    table: str
    columns: str
    values: str

    def script(self) -> str:
        """Return a script for pgbench: one row a transaction."""
        values = self.values.format(n=":n")
        return f"\\set n random(1, 1000000)\nINSERT INTO {self.table} ({self.columns}) VALUES ({values});\n"

    def select(self, rows: int) -> str:
        """Return a query for many rows."""
        return f"SELECT {self.values.format(n='n')} FROM generate_series(1, {rows}) n"


JOB = Target("feed.job", _COLUMNS, _VALUES)
VACANCIES = Target("public.vacancies", _OWN_COLUMNS, _VALUES.removeprefix("'bench', "))


def target(variant: str) -> Target:
    """The table that the writers of a variant write to."""
    return VACANCIES if variant in ("own", "attached") else JOB


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians over the rounds; rates in transactions a second, times in seconds, ratios without a unit."""

    clients: int
    rounds: int
    disk: str
    delay_ms: float
    one_client: float
    one_client_undelayed: float
    rates: dict[str, float]
    catch_up_s: dict[str, float]
    insert_s: dict[str, float]
    copy_s: dict[str, float]

    @property
    def service_of_capture(self) -> float:
        return self.rates["service"] / self.rates["capture"]

    @property
    def attached_of_own(self) -> float:
        return self.rates["attached"] / self.rates["own"]

    @property
    def insert_ratio(self) -> float:
        return self.insert_s["capture"] / self.insert_s["plain"]

    @property
    def copy_ratio(self) -> float:
        return self.copy_s["capture"] / self.copy_s["plain"]

    @property
    def attached_insert_ratio(self) -> float:
        return self.insert_s["attached"] / self.insert_s["own"]

    @property
    def attached_copy_ratio(self) -> float:
        return self.copy_s["attached"] / self.copy_s["own"]


class Sink(asyncio.Protocol):
    """A subscriber that costs next to nothing: asks for the stream and throws it away."""

    def __init__(self, host: str) -> None:
        self._host = host

    def connection_made(self, transport: Any) -> None:
        transport.write(f"GET /v1/jobs/stream HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())


def pgbench(cluster: Cluster, database: str, clients: int, seconds: float) -> float:
    """Transactions a second."""
    script = cluster.root / "script.sql"
    script.write_text(target(database).script())
    script.chmod(0o644)
    done = cluster.run(
        "pgbench", "-h", "127.0.0.1", "-p", str(cluster.port), "-U", "postgres", "-n", "-M", "prepared",
        "-c", str(clients), "-j", "1", "-T", str(max(1, round(seconds))), "-f", str(script), database,
    )  # fmt: skip
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    if found is None:
        raise RuntimeError(done.stdout)
    return float(found[1])


async def prepare(cluster: Cluster, variant: str) -> None:
    """A database of the variant's own."""
    admin = await asyncpg.connect(cluster.dsn())
    await admin.execute(f"CREATE DATABASE {variant}")
    await admin.close()
    await migrate(load_settings(), cluster.dsn(variant))
    own = await asyncpg.connect(cluster.dsn(variant))
    if variant == "plain":
        await own.execute("ALTER TABLE feed.job DISABLE TRIGGER USER")
    elif variant == "notify":
        await own.execute(f"ALTER TABLE feed.job DISABLE TRIGGER USER; {_NOTIFY}")
    elif target(variant) is VACANCIES:
        await own.execute(_OWN)
    if variant == "attached":
        await own.execute("SET search_path = feed")
        spec = AttachmentSpec(
            table="public.vacancies", source="public.vacancies", key=("id",), fields=_OWN_FIELDS, closed="NOT active"
        )
        await attach(own, "feed", spec, await describe(own, spec.table))
    await own.close()


@contextlib.asynccontextmanager
async def serving(dsn: str, subscribers: int) -> AsyncIterator[None]:
    """The service with its defaults, and subscribers that take everything."""
    with tempfile.TemporaryDirectory(prefix="feed-bench-") as folder:
        service = ServiceProcess("bench", dsn, Path(folder), environment={})
        transports = []
        try:
            await service.start()
            where = urlsplit(service.url or "")
            for _ in range(subscribers):
                made, _ = await asyncio.get_running_loop().create_connection(
                    lambda: Sink(where.netloc), where.hostname, where.port
                )
                transports.append(made)
            yield
        finally:
            for transport in transports:
                transport.close()
            await service.end(signal.SIGTERM)


async def caught_up(dsn: str) -> float:
    """Wait until the log holds all that was written; return how long that took."""
    began = time.monotonic()
    connection = await asyncpg.connect(dsn)
    while await connection.fetchval("SELECT EXISTS (SELECT FROM feed.inbox)"):
        await asyncio.sleep(0.02)
    await connection.close()
    return time.monotonic() - began


async def measure_rates(
    cluster: Cluster, clients: int, rounds: int, seconds: float, progress: Console
) -> tuple[dict[str, float], dict[str, float]]:
    """Every variant once a round, in an order that turns; medians, and how long the log took to catch up at the most."""
    rates: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    behind = dict.fromkeys(SERVED, 0.0)
    order = list(VARIANTS)
    for number in range(rounds):
        for variant in order:
            admin = await asyncpg.connect(cluster.dsn(variant))
            await admin.execute("CHECKPOINT")
            await admin.close()
            rate = await asyncio.to_thread(pgbench, cluster, variant, clients, seconds)
            rates[variant].append(rate)
            if variant in SERVED:
                behind[variant] = max(behind[variant], await caught_up(cluster.dsn(variant)))
            progress.print(f"round {number + 1}  {variant:8} {rate:9,.0f} tx/s")
        order.append(order.pop(0))
    return {variant: statistics.median(found) for variant, found in rates.items()}, behind


async def measure_bulk(cluster: Cluster, rows: int, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """One INSERT, and one COPY, of many rows, with the triggers and without; median seconds."""
    seconds: dict[str, dict[str, list[float]]] = {how: {variant: [] for variant in BULK} for how in ("insert", "copy")}
    for number in range(rounds):
        for variant in BULK if number % 2 else reversed(BULK):
            into = target(variant)
            file = cluster.root / f"{into.table}.copy"
            connection = await asyncpg.connect(cluster.dsn(variant))
            if not file.exists():
                await connection.execute(f"COPY ({into.select(rows)}) TO '{file}'")
            statements = {
                "insert": f"INSERT INTO {into.table} ({into.columns}) {into.select(rows)}",
                "copy": f"COPY {into.table} ({into.columns}) FROM '{file}'",
            }
            for how, statement in statements.items():
                await connection.execute("SET session_replication_role = replica")
                for table in (into.table, "feed.inbox"):  # in this order: an attached table is captured even so
                    await connection.execute(f"TRUNCATE {table}")
                await connection.execute("RESET session_replication_role")
                await connection.execute("CHECKPOINT")
                began = time.monotonic()
                await connection.execute(statement)
                seconds[how][variant].append(time.monotonic() - began)
            await connection.close()
    medians = {how: {variant: statistics.median(found) for variant, found in by.items()} for how, by in seconds.items()}
    return medians["insert"], medians["copy"]


async def slow_down(cluster: Cluster, disk: str, delay_ms: float) -> None:
    """Let every flush of the running cluster's log take `delay_ms` longer from now on."""
    delay = round(delay_ms * 1000)
    if disk == "commit_delay":
        admin = await asyncpg.connect(cluster.dsn())
        await admin.execute(f"ALTER SYSTEM SET commit_delay = {delay}")
        await admin.execute("SELECT pg_reload_conf()")
        await admin.close()
        return
    source, library = cluster.root / "slow.c", cluster.root / "slow.so"
    source.write_text(_SLOW)
    subprocess.run(["cc", "-shared", "-fPIC", f"-DDELAY={delay}", "-o", library, source, "-ldl"], check=True)
    cluster.stop()
    os.environ["LD_PRELOAD"] = str(library)
    try:
        cluster.start()
    finally:
        del os.environ["LD_PRELOAD"]


def default_disk() -> Literal["preload", "commit_delay"]:
    """The truer way of slowing a disk, where there is a C compiler."""
    return "preload" if shutil.which("cc") else "commit_delay"


async def measure(
    clients: int, rounds: int, seconds: float, disk: str, delay_ms: float, subscribers: int, rows: int,
    progress: Console,
) -> Figures:  # fmt: skip
    """Everything, on a cluster of its own."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        tempfile.tempdir = str(MEMORY)
    cluster = Cluster(
        fsync="on", commit_siblings="0", max_wal_size="4GB", checkpoint_timeout="30min", autovacuum_naptime="1min",
        shared_buffers="256MB", max_prepared_transactions="0",
    )  # fmt: skip
    try:
        cluster.create().start()
        for variant in VARIANTS:
            await prepare(cluster, variant)
        alone = await asyncio.to_thread(pgbench, cluster, "plain", 1, 2)
        await slow_down(cluster, disk, delay_ms)
        delayed = await asyncio.to_thread(pgbench, cluster, "plain", 1, 2)
        progress.print(f"one client, no delay {alone:,.0f} tx/s; with {delay_ms:g} ms ({disk}) {delayed:,.0f} tx/s")
        async with contextlib.AsyncExitStack() as services:
            for variant in SERVED:
                await services.enter_async_context(serving(cluster.dsn(variant), subscribers))
            rates, behind = await measure_rates(cluster, clients, rounds, seconds, progress)
        insert, copy = await measure_bulk(cluster, rows, rounds)
    finally:
        cluster.remove()
        tempfile.tempdir = None
    return Figures(clients, rounds, disk, delay_ms, delayed, alone, rates, behind, insert, copy)


def show(figures: Figures, console: Console) -> None:
    """Print the page."""
    table = Table(
        title=f"{figures.clients} clients, {figures.delay_ms:g} ms a flush, medians of {figures.rounds} rounds"
    )
    for name in ("variant", "tx/s", "of plain", "of capture"):
        table.add_column(name, justify="left" if name == "variant" else "right")
    for variant, words in VARIANTS.items():
        rate = figures.rates[variant]
        plain, capture = figures.rates["plain"], figures.rates["capture"]
        table.add_row(f"{variant}: {words}", f"{rate:,.0f}", f"{rate / plain:.2f}", f"{rate / capture:.2f}")
    console.print(table)
    met = "met" if figures.service_of_capture >= TARGET else "MISSED"
    console.print(
        f"writers keep {figures.service_of_capture:.2f} of the capture-only rate (target {TARGET}: {met}); "
        f"the log was complete {figures.catch_up_s['service']:.2f} s after the last commit at the latest"
    )
    met = "met" if figures.attached_of_own >= TARGET else "MISSED"
    console.print(
        f"writers of an attached table keep {figures.attached_of_own:.2f} of the rate without feed "
        f"(target {TARGET}: {met}); the log was complete {figures.catch_up_s['attached']:.2f} s after the last commit "
        "at the latest"
    )
    for how, ratio, by, without, captured in (
        ("INSERT", figures.insert_ratio, figures.insert_s, "plain", "capture"),
        ("COPY", figures.copy_ratio, figures.copy_s, "plain", "capture"),
        ("INSERT, attached table", figures.attached_insert_ratio, figures.insert_s, "own", "attached"),
        ("COPY, attached table", figures.attached_copy_ratio, figures.copy_s, "own", "attached"),
    ):
        met = "met" if ratio <= BULK_TARGET else "MISSED"
        console.print(
            f"bulk {how}: {by[without]:.2f} s plain, {by[captured]:.2f} s captured, "
            f"{ratio:.2f} times (target {BULK_TARGET:g}: {met})"
        )


def main(
    clients: Annotated[int, typer.Option(min=1, help="Writers at the same time.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Every variant once a round.")] = 3,
    duration: Annotated[float, typer.Option(min=1, help="Seconds a variant and round.")] = 4,
    delay: Annotated[float, typer.Option(min=0, help="Milliseconds a flush takes longer.")] = 2,
    disk: Annotated[
        Literal["preload", "commit_delay"] | None, typer.Option(help="How; preload where there is a C compiler.")
    ] = None,
    subscribers: Annotated[int, typer.Option(min=0, help="Readers of the whole stream, with the service.")] = 4,
    rows: Annotated[int, typer.Option(min=1000, help="Postings in a bulk load.")] = 100_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one line of JSON.")] = False,
) -> None:
    """Measure what the feed costs those who write to the database; about a minute."""
    progress = Console(stderr=True, highlight=False)
    disk = disk or default_disk()
    figures = asyncio.run(measure(clients, rounds, duration, disk, delay, subscribers, rows, progress))
    if as_json:
        names = (
            "service_of_capture", "attached_of_own", "insert_ratio", "copy_ratio", "attached_insert_ratio",
            "attached_copy_ratio",
        )  # fmt: skip
        ratios = {name: getattr(figures, name) for name in names}
        print(orjson.dumps(asdict(figures) | ratios).decode())
    else:
        show(figures, Console(highlight=False))


if __name__ == "__main__":
    typer.run(main)
