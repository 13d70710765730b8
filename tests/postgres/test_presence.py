"""Presence: every process on a database tells the others of its streams, and one that does not holds nobody up."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
import pytest

from feed.database import presence as module
from feed.database.access import AccessStore
from feed.database.connect import pool
from feed.database.migrate import migrate
from feed.database.presence import Presence, Process, Reports, this_process
from feed.errors import NotFound
from feed.fanout.hub import Hub
from feed.fanout.stream_report import FILTER_LENGTH, Sort, StreamEntry, StreamReport, StreamReporter
from feed.fanout.streams import Streams
from feed.settings.settings import load_settings
from tests.cluster import Cluster
from tests.conftest import make_settings
from tests.postgres.events import Connection, opened
from tests.postgres.running import backends, running, terminate
from tests.waiting import until

_numbers = itertools.count(1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_INTERVAL", 0.05)


class Scripted(StreamReporter):
    """Reports the streams that a test says its process has."""

    def __init__(self, hub: Hub, *entries: StreamEntry) -> None:
        super().__init__(hub, Streams(hub, load_settings().streams))
        self.entries = {entry.id: entry for entry in entries}
        self.ended: list[str] = []

    async def report(self, sorts: Collection[Sort], limit: int) -> StreamReport:
        return StreamReport(streams=len(self.entries), entries=tuple(self.entries.values())[:limit])

    def end(self, id: str) -> bool:
        if id not in self.entries:
            return False
        self.ended.append(id)
        return True


@dataclass(frozen=True, slots=True)
class Present:
    """One process that takes part."""

    presence: Presence
    reporter: Scripted
    here: Process

    async def read(self, sort: Sort = Sort.LAG, limit: int = 100) -> Reports:
        return await self.presence.read(sort, limit)

    async def reading(self, *streams: str, sort: Sort = Sort.LAG, limit: int = 100) -> Reports:
        """What it reads, once these are the streams in order; their names are without the ids of their processes."""

        async def found() -> Reports | None:
            reports = await self.read(sort, limit)
            return reports if names(reports) == list(streams) else None

        return await until(found, 60)


@asynccontextmanager
async def present(dsn: str, *streams: tuple[str, int]) -> AsyncIterator[Present]:
    """A process with streams of these names and lags on a database, which has written itself in; on leaving, it leaves."""
    settings = make_settings(dsn)
    hub = Hub(settings.hub)
    entries = [
        StreamEntry(f"{hub.process}-{name}", lag=lag, since=f"2026-11-21T10:00:{number:02d}.000Z")
        for number, (name, lag) in enumerate(streams)
    ]
    reporter, here = Scripted(hub, *entries), this_process(hub.process, next(_numbers))
    async with pool(settings.database, dsn) as connections:
        presence = Presence(connections, reporter, here, AccessStore(connections).revoke)
        async with running(presence):

            async def written() -> bool:
                return bool(await connections.fetchval("SELECT count(*) FROM process WHERE id = $1", here.id))

            await until(written, 30)
            yield Present(presence, reporter, here)
        await presence.leave()


async def written_at(database: Connection, id: str, seconds_ago: float) -> None:
    """Write the row of a process that last wrote so many seconds ago."""
    await database.execute(
        "INSERT INTO process (id, host, pid, version, started_at, seen_at, report) VALUES ($1, 'elsewhere', 7, '0', "
        "clock_timestamp() - interval '1 day', clock_timestamp() - make_interval(secs => $2), $3::json)",
        id, seconds_ago, StreamReport(streams=1, entries=(StreamEntry(f"{id}-x", lag=99),)).document(10_000),
    )  # fmt: skip


def names(reports: Reports) -> list[str]:
    """The streams, in order, without the ids of their processes."""
    return [entry.id.partition("-")[2] for _, entry in reports.streams()]


async def test_the_streams_of_every_process_are_read_and_the_first_of_all_come_first(dsn: str) -> None:
    async with present(dsn, ("a", 5), ("b", 1)) as one, present(dsn, ("c", 9)) as two, present(dsn) as three:
        reports = await one.reading("c", "a", "b")
        assert [process.worker for process, _ in reports.streams()] == [two.here.worker, *[one.here.worker] * 2]
        assert {process.id for process in reports.processes} == {one.here.id, two.here.id, three.here.id}
        assert reports.processes[0].id == one.here.id
        assert reports.by_process[three.here.id].streams == 0
        assert (reports.missing, reports.fault) == ([], None)
        await two.reading("c", "a", limit=2)


async def test_a_stream_that_opens_or_ends_elsewhere_is_noticed_with_the_next_write(dsn: str) -> None:
    async with present(dsn) as one, present(dsn) as two:
        entry = StreamEntry(f"{two.here.id}-new")
        two.reporter.entries[entry.id] = entry
        first = await one.reading("new")
        two.reporter.entries.clear()
        second = await one.reading()
        seen_at = [
            next(process.seen_at for process in reports.processes if process.id == two.here.id)
            for reports in (first, second)
        ]
        assert seen_at[0] < seen_at[1]


async def test_an_entry_says_the_same_on_the_other_side(dsn: str) -> None:
    async with present(dsn) as one, present(dsn) as two:
        said = StreamEntry(
            f"{two.here.id}-1", "jwt:\x00é", "2001:db8::1", "tag=a&tag=b", "HTTP/2", "2026-11-21T10:00:00.000Z",
            41, 1, 2**40, 2**50, True,
        )  # fmt: skip
        two.reporter.entries[said.id] = said
        assert [entry for _, entry in (await one.reading("1")).streams()] == [said]


async def test_a_process_is_told_apart_by_where_and_when_it_started(dsn: str) -> None:
    async with present(dsn, ("a", 1)) as one, present(dsn) as two:
        (process,) = {process for process, _ in (await two.reading("a")).streams()}
        assert (process.host, process.pid, process.version) == (one.here.host, one.here.pid, one.here.version)
        assert process.started_at == one.here.started_at
        assert process.started_at <= datetime.now(UTC)


async def test_a_process_that_has_not_written_for_long_is_missing_and_not_counted(
    dsn: str, database: Connection
) -> None:
    async with present(dsn, ("a", 1)) as one, present(dsn, ("b", 2)):
        await written_at(database, "hung", module.MISSING_AFTER + 5)
        reports = await one.reading("b", "a")
        assert [(process.host, process.pid) for process in reports.missing] == [("elsewhere", 7)]
        assert reports.fault is None


async def test_a_process_that_has_not_written_for_very_long_is_forgotten(dsn: str, database: Connection) -> None:
    await written_at(database, "dead", module.GONE_AFTER + 5)
    async with present(dsn) as one:
        assert [process.id for process in (await one.read()).processes] == [one.here.id]

        async def swept() -> bool:
            return await database.fetchval("SELECT count(*) FROM process") == 1

        await until(swept, 30)


async def test_a_process_whose_row_was_deleted_writes_itself_in_again(dsn: str, database: Connection) -> None:
    async with present(dsn) as one, present(dsn, ("a", 1)) as two:
        await one.reading("a")
        await database.execute("DELETE FROM process")
        reports = await one.reading("a")
        assert [process.started_at for process, _ in reports.streams()] == [two.here.started_at]


async def test_a_process_that_leaves_is_not_missed(dsn: str) -> None:
    async with present(dsn) as one:
        async with present(dsn, ("a", 1)):
            await one.reading("a")
        assert [process.id for process in (await one.read()).processes] == [one.here.id]


async def test_a_process_keeps_one_row_of_bounded_size(dsn: str, database: Connection) -> None:
    async with present(dsn) as one, present(dsn) as two:
        for number in range(1_000):
            id = f"{two.here.id}-{number}"
            two.reporter.entries[id] = StreamEntry(id, "jwt:" + "k" * 196, filter="q=" + "é" * 500, lag=1_000 - number)

        async def told() -> Reports | None:
            reports = await one.read(limit=1_000)
            return reports if reports.streams() else None

        reports = await until(told, 60)
        assert reports.by_process[two.here.id].streams == 1_000
        listed = reports.streams()
        assert 50 < len(listed) <= module.REPORTED_STREAMS
        assert [entry.id for _, entry in listed] == [f"{two.here.id}-{number}" for number in range(len(listed))]
        assert {len(entry.filter) for _, entry in listed} == {FILTER_LENGTH}
        size = await database.fetchval("SELECT max(octet_length(report::text)) FROM process")
        assert size <= module.REPORT_BYTES
        assert await database.fetchval("SELECT count(*) FROM process") == 2


async def test_what_a_newer_version_says_more_is_left_out(dsn: str, database: Connection) -> None:
    report = {"streams": 1, "novelty": 1, "entries": [{"id": "new-1", "lag": 3, "novelty": [1]}]}
    async with present(dsn) as one:
        await written_at(database, "new", 0)
        await database.execute("UPDATE process SET report = $1::json WHERE id = 'new'", orjson.dumps(report).decode())
        assert [entry for _, entry in (await one.reading("1")).streams()] == [StreamEntry("new-1", lag=3)]


async def test_a_kick_of_a_stream_here_is_done_at_once(dsn: str, database: Connection) -> None:
    async with present(dsn, ("1", 0)) as one:
        assert await one.presence.kick(f"{one.here.id}-1") is True
        assert one.reporter.ended == [f"{one.here.id}-1"]
        assert await database.fetchval("SELECT count(*) FROM revocation") == 0


@pytest.mark.parametrize("stream", ["1", "one-that-is-not-among-those-reported"])
async def test_a_kick_of_a_stream_elsewhere_is_left_for_its_process(
    dsn: str, database: Connection, stream: str
) -> None:
    async with present(dsn) as one, present(dsn, ("1", 0)) as two:
        assert await one.presence.kick(f"{two.here.id}-{stream}") is False
        row = await database.fetchrow("SELECT kind, subject, until - at < interval '5 min' AS short FROM revocation")
        assert row is not None
        assert tuple(row) == ("stream", f"{two.here.id}-{stream}", True)


async def test_a_kick_of_a_stream_whose_process_is_missing_is_left_for_it_all_the_same(
    dsn: str, database: Connection
) -> None:
    async with present(dsn) as one:
        await written_at(database, "hung", module.MISSING_AFTER + 5)
        assert await one.presence.kick("hung-x") is False
        assert await database.fetchval("SELECT subject FROM revocation") == "hung-x"


async def test_a_kick_of_what_nobody_has_is_not_found(dsn: str, database: Connection) -> None:
    async with present(dsn, ("1", 0)) as one:
        await written_at(database, "dead", module.GONE_AFTER + 5)
        for id in (f"{one.here.id}-2", "dead-x", "nobody-1", "", "\x00", "\x00-1"):
            with pytest.raises(NotFound, match="no open stream"):
                await one.presence.kick(id)
        assert await database.fetchval("SELECT count(*) FROM revocation") == 0


async def test_a_process_reports_of_itself_where_the_database_is_away() -> None:
    cluster = Cluster()
    await asyncio.to_thread(lambda: cluster.create().start())
    try:
        dsn = cluster.dsn()
        await migrate(make_settings(dsn), dsn)
        async with present(dsn, ("a", 1)) as one, present(dsn, ("b", 2)):
            await asyncio.to_thread(cluster.stop, "immediate")
            reports = await one.read()
            assert names(reports) == ["a"]
            assert reports.fault is not None
            assert "database" in reports.fault
            assert reports.missing == []
            assert await one.presence.kick(f"{one.here.id}-a") is True
            # A crash empties the table; who lives writes itself in again.
            await asyncio.to_thread(cluster.start)
            assert (await one.reading("b", "a")).fault is None
            async with opened(dsn) as database:
                assert await database.fetchval("SELECT count(*) FROM process") == 2
    finally:
        await asyncio.to_thread(cluster.remove)


async def test_a_database_that_does_not_answer_holds_nobody_up(
    dsn: str, database: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_READ_TIMEOUT", 0.2)
    async with present(dsn, ("a", 1)) as one:
        async with database.transaction():
            await database.execute("LOCK TABLE process IN ACCESS EXCLUSIVE MODE")
            reports = await one.read()
            assert names(reports) == ["a"]
            assert reports.fault is not None
            assert "does not answer" in reports.fault
        assert (await one.reading("a")).by_process.keys() == {one.here.id}


async def test_connections_that_are_ended_are_made_anew(dsn: str, database: Connection) -> None:
    async with present(dsn) as one, present(dsn, ("a", 1)):
        await one.reading("a")
        await terminate(database, "feed pool")
        await one.reading("a")
        assert await backends(database, "feed pool")
