"""The same feed with threads: Flask under gunicorn beside ours, on the same core; streams held, and lists answered."""

import asyncio
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson

from feed.bench.fanout import spec_of
from feed.bench.latency import Spread, spread
from feed.bench.readers import reading
from feed.bench.spec import Spec
from feed.bench.usage import cpu_seconds, resident_bytes
from feed.bench.writer import new_run, now_us, pace, posting
from feed.database.migrate import migrate
from feed.errors import FeedError
from feed.settings.settings import load_settings
from tests.bench.contenders import H1
from tests.bench.machine import Cores
from tests.bench.section import Bench, Section, Target
from tests.bench.services import Server, feed, gunicorn

STEPS = (2_000, 8_000, 16_000)
"""Streams to be held at once, one step after the other, until one of them goes wrong."""
_THREADS = 20_000
"""What gunicorn may start, so that the machine is the bound, and no setting."""
_POSTINGS = 2_000
_CLIENTS = 16
_STREAMS = 200
_EVENTS = 20.0
"""Postings a second while those are open."""
_LISTS = 50.0
"""Lists a second meanwhile."""
_HELD_EVENTS = 5
"""Postings that every stream that is held must get."""
_HELD_PATIENCE = 20.0
"""Seconds for that, and for a list to be answered meanwhile."""
_OPENING = 60.0
"""Seconds for all to become live: how fast they do is what the section `accept` measures."""
_LIST = "GET /v1/jobs?limit=20"
_FILL = """
INSERT INTO {} (source, external_id, title, company, url, location, tags)
SELECT 'seed', n::text, 'Engineer ' || n, 'Acme', 'https://acme.example/' || n, 'Berlin', ARRAY['python', 'postgres']
FROM generate_series(1, $1::int) n
"""
_TABLE = """
CREATE TABLE posting (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, source text NOT NULL, external_id text, title text NOT NULL,
  company text NOT NULL, url text NOT NULL, location text, country text, workplace text, employment_type text,
  seniority text, tags text[] NOT NULL DEFAULT '{}', salary_min numeric, salary_max numeric, currency text,
  salary_period text, latitude double precision, longitude double precision, posted_at timestamptz NOT NULL DEFAULT now(),
  valid_through timestamptz, version integer NOT NULL DEFAULT 1, updated_at timestamptz NOT NULL DEFAULT now(),
  closed_at timestamptz, UNIQUE (source, external_id)
);
CREATE INDEX ON posting (id) WHERE closed_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class Rival:
    """A service with the feed's addresses; `live` is what its streams say first."""

    name: str
    start: Callable[[str, Cores], AbstractAsyncContextManager[Server]]
    live: str

    def spec(self, server: Server, run: str, streams: int, cores: Cores) -> Spec:
        return dataclasses.replace(
            spec_of(server.url, run, streams, *H1), live=self.live, cores=cores.load, patience=_OPENING
        )


FEED = Rival("feed", lambda dsn, cores: feed(dsn, cores, max_streams=2 * max(STEPS)), "event: synced")
FLASK = Rival(
    "Flask, gunicorn's threads",
    lambda dsn, cores: gunicorn("tests.bench.peers.flask_threads:app", dsn, _THREADS, cores),
    ": hi",
)


class Client:
    """A connection that stays, with one request after the other; a server may end it between two of them."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._where = (str(where.hostname), int(where.port or 80))
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, what: str, body: bytes = b"") -> None:
        """Ask (method and path) and return when the answer is there; raises RuntimeError unless it is a success.

        OSError and EOFError are raised where the connection breaks.
        """
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection(*self._where)
        reader, writer = self._streams
        lines = (f"{what} HTTP/1.1", f"Host: {self._where[0]}:{self._where[1]}", "Content-Type: application/json",
                 f"Content-Length: {len(body)}", "", "")  # fmt: skip
        writer.write("\r\n".join(lines).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 20"):
            raise RuntimeError(f"the answer was {head.splitlines()[0].decode()}")
        fields = dict(line.partition(b":")[::2] for line in head.split(b"\r\n")[1:])
        await reader.readexactly(int(fields[b"content-length"]))
        if b"close" in fields.get(b"connection", b""):
            self.close()

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Poster:
    """Writes each event by a POST of its own, to either service."""

    def __init__(self, client: Client, run: str) -> None:
        self.run = run
        self._client = client

    async def write(self, number: int, count: int = 1) -> float:
        """Write events; returns when the last was answered."""
        for one in range(number, number + count):
            await self._client.ask("POST /v1/jobs", orjson.dumps(posting(f"{self.run}-{one}-{now_us()}")))
        return time.monotonic()


@asynccontextmanager
async def posting_to(server: Server) -> AsyncIterator[Poster]:
    """A poster on a connection of its own."""
    client = Client(server.url)
    try:
        yield Poster(client, new_run())
    finally:
        client.close()


async def section(bench: Bench) -> Section:
    """Both, on all three questions."""
    page = Section(
        "flask",
        f"The same feed with threads, one core each; lists of 20, also beside {_STREAMS} streams at {_EVENTS:g} events/s",
        {
            "who": "", "http": "", "held": "streams held", "held_mb": "MB with them",
            "requests": "lists/s", "request_ms": "CPU ms a list", "p50": "beside streams: p50 ms", "p99": "p99 ms",
        },
    )  # fmt: skip
    rows: dict[str, dict[str, Any]] = {}
    for who in (FLASK, FEED):
        if not bench.wants(who.name):
            continue
        dsn = await _filled(bench, who)
        row: dict[str, Any] = {"who": who.name, "http": "HTTP/1.1"}
        try:
            async with who.start(dsn, bench.cores) as server:
                bench.say(f"threads: {who.name}, lists")
                row["requests"], row["request_ms"] = await lists(server, 1.0 if bench.quick else 4.0)
                bench.say(f"threads: {who.name}, lists beside {_STREAMS} streams")
                found = await beside(bench, who, server, 2.0 if bench.quick else 8.0)
                row["p50"], row["p99"] = found.p50, found.p99
            row |= await _held(bench, who, dsn)
        except (OSError, EOFError, TimeoutError, FeedError, RuntimeError) as error:
            page.fail(who.name, "HTTP/1.1", error)
            continue
        rows[who.name] = row
        page.notes.append(f"{who.name}: {row['why']}.")
    for name, row in rows.items():
        theirs = rows.get(FLASK.name)
        targets: list[Target] = []
        if name == FEED.name and theirs is not None:
            users = row["held"] / max(theirs["held"], 1)
            quicker = 1 - row["p50"] / theirs["p50"]
            targets = [
                Target(f"{users:.3g} x the streams, >= 3", users >= 3),
                Target(f"{quicker:.0%} less time for a list (p50), >= 40 %", quicker >= 0.4),
            ]
        page.add(*targets, **row)
    page.notes.append(
        f"Held: every stream is live within {_OPENING:g} s, gets each of {_HELD_EVENTS} postings within {_HELD_PATIENCE:g} "
        "s, and a list is answered meanwhile. gunicorn has one process, as its queues are in memory, and may start "
        f"{_THREADS:,} threads: under a usual bound of some dozens, so many streams leave none for anybody else."
    )
    return page


async def _filled(bench: Bench, who: Rival) -> str:
    """A database with postings to list, as the service wants it."""
    dsn = await bench.dsn()
    if who is FEED:
        await migrate(load_settings(), dsn)
    connection = await asyncpg.connect(dsn)
    try:
        if who is not FEED:
            await connection.execute(_TABLE)
        await connection.execute(_FILL.format("feed.job" if who is FEED else "posting"), _POSTINGS)
    finally:
        await connection.close()
    return dsn


async def _together(all_of_them: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Run all at once to their ends; raises what the first that fails raises, and ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in all_of_them:
                group.create_task(one)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def lists(server: Server, seconds: float) -> tuple[float, float]:
    """Lists answered in a second, and milliseconds of the service's processor for each."""
    answered = 0

    async def ask(client: Client, until: float) -> None:
        nonlocal answered
        try:
            while time.monotonic() < until:
                await client.ask(_LIST)
                answered += 1
        finally:
            client.close()

    for span in (min(1.0, seconds), seconds):  # the first is for what is made once
        answered = 0
        began, used = time.monotonic(), cpu_seconds(server.pid)
        async with asyncio.timeout(seconds + 30):
            await _together(ask(Client(server.url), began + span) for _ in range(_CLIENTS))
    took, used = time.monotonic() - began, cpu_seconds(server.pid) - used
    return round(answered / took, 1), round(1000 * used / max(answered, 1), 3)


async def beside(bench: Bench, who: Rival, server: Server, seconds: float) -> Spread:
    """How long lists take while streams are open and written to, from when each was due; raises RuntimeError on a loss."""
    found: list[float] = []

    async def ask(client: Client) -> None:
        due = time.monotonic() + random.uniform(0, _CLIENTS / _LISTS)
        try:
            while due < end:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await client.ask(_LIST)
                found.append((time.monotonic() - due) * 1000)
                due += random.uniform(0.5, 1.5) * _CLIENTS / _LISTS
        finally:
            client.close()

    async with posting_to(server) as writer, reading(who.spec(server, writer.run, _STREAMS, bench.cores)) as readers:
        await readers.open()
        end = time.monotonic() + seconds
        events = round(seconds * _EVENTS)
        async with asyncio.timeout(seconds * 5 + 30):
            clients = (ask(Client(server.url)) for _ in range(_CLIENTS))
            await _together([pace(writer, 0, events, _EVENTS), *clients])
        await readers.reach(events, _HELD_PATIENCE)
        seen = await readers.report(events)
    if seen.missing or seen.twice:
        raise RuntimeError(f"{seen.missing} events were missing and {seen.twice} came twice: {seen.error}")
    return spread(found)


async def _held(bench: Bench, who: Rival, dsn: str) -> dict[str, Any]:
    """The highest step that was held, and what went wrong with the next."""
    found: dict[str, Any] = {"held": 0, "why": "no more were tried"}
    for streams in STEPS[:1] if bench.quick else STEPS:
        bench.say(f"threads: {who.name}, {streams:,} streams at once")
        async with who.start(dsn, bench.cores) as server:  # with nothing left of the step before
            try:
                megabytes = await hold(bench, who, server, streams)
            except (OSError, EOFError, TimeoutError, FeedError, RuntimeError) as error:
                found["why"] = f"at {streams:,}: {str(error) or 'no answer'}"
                break
        found |= {"held": streams, "held_mb": megabytes}
    return found


async def hold(bench: Bench, who: Rival, server: Server, streams: int) -> float:
    """Hold so many streams at once; returns the service's memory in MB. Raises whatever goes wrong."""
    async with posting_to(server) as writer, reading(who.spec(server, writer.run, streams, bench.cores)) as readers:
        await readers.open()
        async with asyncio.timeout(_HELD_PATIENCE):
            await pace(writer, 0, _HELD_EVENTS, 2.0)
            client = Client(server.url)
            try:
                await client.ask(_LIST)
            finally:
                client.close()
        await readers.reach(_HELD_EVENTS, _HELD_PATIENCE)
        seen = await readers.report(_HELD_EVENTS)
        if seen.missing or seen.ended:
            raise RuntimeError(seen.error or f"{seen.missing:,} events had not come after {_HELD_PATIENCE:g} s")
        return round(resident_bytes(server.pid) / 2**20, 1)
