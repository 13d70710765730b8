"""The census: every process on a database is asked, and those that do not answer hold nobody up."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from feed.database.access import AccessStore
from feed.database.census import Census, Process, Tally, this_process
from feed.database.connect import pool
from feed.database.migrate import migrate
from feed.errors import NotFound
from feed.fanout.hub import Hub
from feed.fanout.stream_report import Answer, Entry, Roll, Sort
from feed.fanout.streams import Streams
from feed.settings.settings import load_settings
from tests.cluster import Cluster
from tests.conftest import make_settings
from tests.postgres.events import Connection, opened
from tests.postgres.running import backends, running, terminate
from tests.waiting import until

_numbers = itertools.count(1)
LISTENER = "census listener"


class Said(Roll):
    """A process that has the streams that a test says."""

    def __init__(self, hub: Hub, *entries: Entry) -> None:
        super().__init__(hub, Streams(hub, load_settings().streams))
        self.has = {entry.id: entry for entry in entries}
        self.ended: list[str] = []

    async def call(self, sort: Sort, limit: int, only: str | None = None) -> Answer:
        found = tuple(entry for entry in self.has.values() if only in (None, entry.id))
        return Answer(streams=len(found), entries=found[:limit])

    def end(self, id: str) -> bool:
        if id not in self.has:
            return False
        self.ended.append(id)
        return True


class Taking:
    """One process that takes part: its census, and what it has."""

    def __init__(self, census: Census, roll: Said, here: Process) -> None:
        self.census = census
        self.roll = roll
        self.here = here

    async def ask(self, sort: Sort = Sort.LAG, limit: int = 100) -> Tally:
        return await self.census.ask(sort, limit)


@asynccontextmanager
async def taking(dsn: str, *streams: tuple[str, int], listens: bool = True) -> AsyncIterator[Taking]:
    """A process with streams of these names and lags, on a database; it takes part until it is left."""
    settings = make_settings(dsn)
    hub = Hub(settings.hub)
    entries = [
        Entry(f"{hub.process}-{name}", lag=lag, since=f"2026-11-21T10:00:{number:02d}.000Z")
        for number, (name, lag) in enumerate(streams)
    ]
    roll, here = Said(hub, *entries), this_process(hub.process, next(_numbers))
    async with pool(settings.database, dsn) as connections, opened(dsn) as listener:
        census = Census(settings, connections, roll, here, AccessStore(connections).revoke)
        await listener.execute(f"SET application_name = '{LISTENER}'")
        if listens:
            await listener.add_listener(census.channel, lambda *said: census.hear(str(said[3])))
        async with running(census):

            async def present() -> bool:
                return bool(await connections.fetchval("SELECT count(*) FROM process WHERE id = $1", here.id))

            await until(present, 30)
            yield Taking(census, roll, here)


async def whole(process: Taking, sort: Sort = Sort.LAG, limit: int = 100) -> Tally:
    """A tally that nobody is missing in: on a busy machine an answer may come too late, or a connection may just be gone."""

    async def asked() -> Tally | None:
        tally = await process.ask(sort, limit)
        return None if tally.missing or tally.fault else tally

    return await until(asked, 60)


def names(tally: Tally) -> list[str]:
    """The streams, in order, without their processes' ids."""
    return [entry.id.partition("-")[2] for _, entry in tally.entries()]


async def test_every_process_is_asked_and_the_worst_of_all_come_first(dsn: str) -> None:
    async with taking(dsn, ("a", 5), ("b", 1)) as one, taking(dsn, ("c", 9)) as two, taking(dsn) as three:
        tally = await whole(one)
        assert names(tally) == ["c", "a", "b"]
        assert [process.worker for process, _ in tally.entries()] == [two.here.worker, one.here.worker, one.here.worker]
        assert {process.id for process in tally.processes} == {one.here.id, two.here.id, three.here.id}
        assert tally.answers[three.here.id].streams == 0
        assert names(await whole(two, limit=2)) == ["c", "a"]


async def test_an_entry_says_the_same_on_the_other_side(dsn: str) -> None:
    async with taking(dsn) as one, taking(dsn) as two:
        said = Entry(
            f"{two.here.id}-1", "jwt:\x00é", "2001:db8::1", "tag=a&tag=b", "HTTP/2", "2026-11-21T10:00:00.000Z",
            41, 1, 2**40, 2**50, True,
        )  # fmt: skip
        two.roll.has[said.id] = said
        assert [entry for _, entry in (await whole(one)).entries()] == [said]


async def test_a_process_that_does_not_answer_is_named_and_the_others_are_heard(dsn: str, database: Connection) -> None:
    async with taking(dsn, ("a", 1)) as one, taking(dsn, ("b", 2)) as two:
        await database.execute("INSERT INTO process (id, host, pid, version) VALUES ('dead', 'elsewhere', 7, '0')")

        async def both() -> Tally | None:
            tally = await one.ask()
            return tally if two.here.id in tally.answers else None

        async with asyncio.timeout(30):
            tally = await until(both, 30)
        assert names(tally) == ["b", "a"]
        assert [(process.host, process.pid) for process in tally.missing] == [("elsewhere", 7)]
        assert tally.fault is None


async def test_a_process_that_gave_no_sign_for_long_is_not_asked(dsn: str, database: Connection) -> None:
    async with taking(dsn) as one:
        await database.execute(
            "INSERT INTO process (id, host, pid, version, seen_at) "
            "VALUES ('gone', 'elsewhere', 7, '0', clock_timestamp() - interval '20 s')"
        )
        tally = await one.ask()
        assert [process.id for process in tally.processes] == [one.here.id]


async def test_a_process_that_leaves_is_not_waited_for(dsn: str, database: Connection) -> None:
    async with taking(dsn) as one:
        async with taking(dsn) as two:
            await whole(one)
            await two.census.leave()
        assert [process.id for process in (await one.ask()).processes] == [one.here.id]


async def test_nothing_of_a_question_stays(dsn: str, database: Connection) -> None:
    async with taking(dsn) as one, taking(dsn, listens=False) as deaf, taking(dsn):
        assert [process.id for process in (await one.ask()).missing][-1:] == [deaf.here.id]
        assert await database.fetchval("SELECT count(*) FROM census") == 0

        async def nothing() -> bool:
            return await database.fetchval("SELECT count(*) FROM census_answer") == 0

        await until(nothing, 30)


async def test_what_a_crash_left_is_swept(dsn: str, database: Connection) -> None:
    await database.execute(
        "INSERT INTO process (id, host, pid, version, seen_at) VALUES ('old', 'h', 1, '0', now() - interval '1 hour');"
        "INSERT INTO census (id, sort, most, asked_at) VALUES (gen_random_uuid(), 'lag', 1, now() - interval '1 hour');"
        "INSERT INTO census_answer (census, process, answer, answered_at) "
        "VALUES (gen_random_uuid(), 'old', '{}', now() - interval '1 hour')"
    )
    async with taking(dsn):

        async def swept() -> bool:
            left = "SELECT (SELECT count(*) FROM census) + (SELECT count(*) FROM census_answer) + count(*) FROM process"
            return await database.fetchval(left) == 1

        await until(swept, 30)


async def test_noise_on_the_channel_is_not_answered_and_harms_nothing(dsn: str, database: Connection) -> None:
    async with taking(dsn) as one, taking(dsn, ("a", 1)) as two:
        for noise in ("", "junk", "'; DROP TABLE job; --", "00000000-0000-0000-0000-000000000000"):
            for _ in range(50):
                await database.execute("SELECT pg_notify('feed_census', $1)", noise)
        assert names(await whole(one)) == ["a"]
        assert two.here.id in {process.id for process in (await whole(one)).processes}


async def test_a_kick_of_a_stream_here_is_done_at_once(dsn: str, database: Connection) -> None:
    async with taking(dsn, ("1", 0)) as one:
        assert await one.census.kick(f"{one.here.id}-1") is True
        assert one.roll.ended == [f"{one.here.id}-1"]
        assert await database.fetchval("SELECT count(*) FROM revocation") == 0


async def test_a_kick_of_a_stream_elsewhere_is_left_for_its_process(dsn: str, database: Connection) -> None:
    async with taking(dsn) as one, taking(dsn, ("1", 0)) as two:
        await whole(one)
        assert await one.census.kick(f"{two.here.id}-1") is False
        row = await database.fetchrow("SELECT kind, subject, until - at < interval '5 min' AS short FROM revocation")
        assert row is not None
        assert tuple(row) == ("stream", f"{two.here.id}-1", True)


async def test_a_kick_of_a_stream_whose_process_is_silent_is_left_for_it_all_the_same(
    dsn: str, database: Connection
) -> None:
    async with taking(dsn) as one, taking(dsn, ("1", 0), listens=False) as deaf:
        assert await one.census.kick(f"{deaf.here.id}-1") is False
        assert await database.fetchval("SELECT subject FROM revocation") == f"{deaf.here.id}-1"


async def test_a_kick_of_what_nobody_has_is_not_found(dsn: str, database: Connection) -> None:
    async with taking(dsn, ("1", 0)) as one, taking(dsn, ("1", 0)) as two:
        await whole(one)
        for id in (f"{one.here.id}-2", "nobody-1", "", "\x00"):
            with pytest.raises(NotFound, match="no open stream"):
                await one.census.kick(id)

        async def answered() -> bool:
            try:
                await one.census.kick(f"{two.here.id}-2")
            except NotFound:
                return True
            return False  # the other was too slow to say no

        await until(answered, 60)


async def test_a_process_asks_itself_where_the_database_is_away() -> None:
    cluster = Cluster()
    await asyncio.to_thread(lambda: cluster.create().start())
    try:
        dsn = cluster.dsn()
        await migrate(make_settings(dsn), dsn)
        async with taking(dsn, ("a", 1)) as one:
            await asyncio.to_thread(cluster.stop, "immediate")
            tally = await one.ask()
            assert names(tally) == ["a"]
            assert tally.fault is not None
            assert "database" in tally.fault
            assert tally.missing == []
            # A crash empties the tables; who lives writes itself in again.
            await asyncio.to_thread(cluster.start)

            async def back() -> bool:
                tally = await one.ask()
                async with opened(dsn) as database:
                    return tally.fault is None and await database.fetchval("SELECT count(*) FROM process") == 1

            await until(back, 60)
    finally:
        await asyncio.to_thread(cluster.remove)


async def test_connections_that_are_ended_are_made_anew(dsn: str, database: Connection) -> None:
    async with taking(dsn) as one, taking(dsn, ("a", 1)):
        await whole(one)
        await terminate(database, "feed pool")
        assert names(await whole(one)) == ["a"]
        assert await backends(database, "feed pool")
