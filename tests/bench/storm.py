"""The reconnect storm: everybody comes back at once, just after a restart, some way behind."""

import dataclasses
import re
from pathlib import Path

import asyncpg

from feed.bench.fanout import spec_of
from feed.bench.storm import Storm, run
from feed.bench.writer import new_run, sql_writer
from feed.database.migrate import migrate
from feed.errors import FeedError
from feed.settings.settings import load_settings
from tests.bench.contenders import H1, SHARED, Mode, mode_name
from tests.bench.section import Bench, Section, at_most
from tests.bench.services import feed

SECONDS, BYSTANDERS_P99 = 15.0, 250.0
_BACK = 1_000
_BYSTANDERS = 50
_SMALL_RING = 100
"""Events in memory, so that what is replayed comes from the log."""
_READ = re.compile(r"^feed pool\|LOG:[^\n]*(?:\n\t[^\n]*)*?FROM log l", re.MULTILINE)
"""What the server's log says of a page that was read; the tailer has another name and another query."""


async def section(bench: Bench) -> Section:
    """The feed with one worker and with two, each just started, so that nothing is in its memory."""
    subscribers = 500 if bench.quick else 5_000
    page = Section(
        "storm",
        f"{subscribers:,} subscribers come back at once, about {_BACK:,} events behind",
        {
            "who": "", "http": "", "seconds": "s until all are live", "p50": "ms p50", "deliveries": "deliveries",
            "missing": "missing or twice", "queries": "reads of the log", "pages": "pages", "live_p99": "bystanders p99, ms",
            "readers_busy": "readers busy",
        },
    )  # fmt: skip
    whole = load_settings().hub.ring_events
    for workers, mode, ring in ((1, H1, whole), (2, H1, whole), (2, SHARED, whole), (2, H1, _SMALL_RING)):
        name = f"{workers} worker{'s' * (workers > 1)}, from {'memory' if ring == whole else 'the log'}"
        bench.say(f"storm: {name}, {mode_name(mode)}")
        try:
            found, queries, pages = await measure(bench, subscribers, workers, mode, ring)
        except (TimeoutError, FeedError, RuntimeError) as error:
            page.fail(name, mode_name(mode), error)
            continue
        live = found.live.p99 if found.live else None
        targets = (
            at_most(found.seconds, SECONDS, " s"),
            at_most(queries, 2 * pages, " reads"),
            at_most(live, BYSTANDERS_P99, " ms"),
        )
        page.add(
            *(targets if workers == 2 else ()), who=name, http=mode_name(mode), seconds=found.seconds,
            p50=found.synced.p50, deliveries=found.deliveries, missing=found.missing, queries=queries, pages=pages,
            live_p99=live, readers_busy=found.reader_busy, ended=found.ended,
        )  # fmt: skip
    page.notes.append(
        "No peer at hand keeps a log to come back to. Two workers share both cores with the load; each has a memory of its "
        f"own, and may read a page twice. From the log: with only {_SMALL_RING} events in memory."
    )
    return page


async def measure(bench: Bench, subscribers: int, workers: int, mode: Mode, ring: int) -> tuple[Storm, int, int]:
    """A storm on a service that has just started; with the reads it took, and the pages there were to read."""
    dsn = await bench.dsn()
    await migrate(load_settings(), dsn)
    async with feed(dsn, bench.cores), sql_writer(dsn, new_run(), close=False) as writer:
        await writer.write(0, round(_BACK * 1.3))
        await _sequenced(dsn, round(_BACK * 1.3))
    admin = await asyncpg.connect(dsn)
    database = await admin.fetchval("SELECT current_database()")
    await admin.execute("ALTER SYSTEM SET log_line_prefix = '%a|'")
    await admin.execute("SELECT pg_reload_conf()")
    await admin.execute(f"ALTER DATABASE {database} SET log_statement = 'all'")
    logged = Path(await admin.fetchval("SHOW data_directory")).parent / "log"
    await admin.close()
    page_size = load_settings().replay.page
    bounds = {"max_streams": max(20_000, 2 * subscribers), "ring_events": ring}
    async with (
        feed(dsn, bench.cores, workers=workers, **bounds) as server,
        sql_writer(dsn, new_run(), close=False) as writer,
    ):
        begin = logged.stat().st_size
        spec = dataclasses.replace(spec_of(server.url, writer.run, subscribers, *mode), cores=bench.cores.load)
        found = await run(server.url, spec, _BACK, writer, _BYSTANDERS, 60, lambda _: None)
        with logged.open() as log:
            log.seek(begin)
            queries = len(_READ.findall(log.read()))
    first, last = (
        round(_BACK * 0.2),
        round(_BACK * 1.3),
    )  # the farthest cursor, and the head before the bystanders' events
    return found, queries, last // page_size - first // page_size + 1


async def _sequenced(dsn: str, head: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        while int(await connection.fetchval("SELECT head FROM feed.state")) < head:
            pass
    finally:
        await connection.close()
