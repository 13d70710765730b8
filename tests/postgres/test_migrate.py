"""Migrations: each once, whoever comes at the same time, with the least rights, or a refusal that says what to do."""

import asyncio

import asyncpg
import pytest

from feed.database import locking
from feed.database import migrate as migrate_module
from feed.database.migrate import Migration, migrate, migrations
from feed.database.retention import prune
from feed.database.sequencer import Sequencer
from feed.database.tailer import Tailer
from feed.errors import DatabaseRefused, DatabaseUnavailable
from feed.fanout.hub import Hub
from feed.model.fold import fold, words
from feed.model.frame import data_of
from tests.cluster import Cluster, versions
from tests.conftest import Connect, make_settings
from tests.postgres.events import Connection, add, advanced, opened, titles
from tests.postgres.running import running
from tests.waiting import until

FAR = {"tail_poll": 300.0, "sequencer_lease": 1000.0}


async def schemas(dsn: str) -> list[str]:
    """Where a table `migration` lies."""
    async with opened(dsn) as connection:
        rows = await connection.fetch(
            "SELECT relnamespace::regnamespace::text AS name FROM pg_class WHERE relname = 'migration'"
        )
    return [row["name"] for row in rows]


async def owner_of(blank: str, role: str, cluster: Cluster, *grants: str) -> str:
    """Take what everybody may do in a database from everybody, give `grants`, and return the role's way in."""
    name = blank.rpartition("/")[2]
    async with opened(blank) as admin:
        await admin.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO {role}")
        await admin.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        for grant in grants:
            await admin.execute(grant)
    return cluster.dsn(name, role)


async def test_each_migration_is_applied_once_and_in_order(blank: str) -> None:
    settings = make_settings(blank)
    assert [one.version for one in await migrate(settings, blank)] == [one.version for one in migrations()]
    assert await migrate(settings, blank) == []
    async with opened(blank) as connection:
        rows = await connection.fetch("SELECT version, name, checksum FROM migration ORDER BY version")
    assert [tuple(row) for row in rows] == [(one.version, one.name, one.checksum) for one in migrations()]
    assert [one.version for one in migrations()] == list(range(1, len(rows) + 1))


async def test_several_that_migrate_at_once_apply_each_once(blank: str) -> None:
    settings = make_settings(blank)
    done = await asyncio.gather(*(migrate(settings, blank) for _ in range(5)))
    assert sorted(map(len, done)) == [0, 0, 0, 0, len(migrations())]


async def test_a_migration_that_was_applied_in_another_form_is_refused(database: Connection, dsn: str) -> None:
    await database.execute("UPDATE migration SET checksum = 'other' WHERE version = 1")
    with pytest.raises(DatabaseRefused, match=r"migration 1 \(job\) was applied in another form"):
        await migrate(make_settings(dsn), dsn)


async def test_a_database_that_is_newer_than_the_code_is_refused(database: Connection, dsn: str) -> None:
    await database.execute("INSERT INTO migration (version, name, checksum) VALUES (9999, 'future', 'x')")
    with pytest.raises(DatabaseRefused, match=r"at migration 9999, .* upgraded by a newer version"):
        await migrate(make_settings(dsn), dsn)


async def test_a_migration_that_fails_leaves_nothing_of_itself(blank: str) -> None:
    settings = make_settings(blank)
    async with opened(blank) as connection:
        await connection.execute(
            "CREATE SCHEMA feed; CREATE FUNCTION feed.ring() RETURNS int LANGUAGE sql AS 'SELECT 1'"
        )
        with pytest.raises(asyncpg.DuplicateFunctionError):
            await migrate(settings, blank)
        assert await connection.fetchval("SELECT max(version) FROM migration") == 1
        assert await connection.fetchval("SELECT to_regclass('feed.inbox')") is None
        await connection.execute("DROP FUNCTION ring()")
    assert [one.version for one in await migrate(settings, blank)] == [one.version for one in migrations()][1:]


CHANGE = Migration(len(migrations()) + 1, "change", "ALTER TABLE job ADD COLUMN later text")


@pytest.fixture
def changing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more migration, which needs a lock that nobody else may hold; short waits."""
    ours = [*migrations(), CHANGE]
    monkeypatch.setattr(migrate_module, "migrations", lambda: ours)
    monkeypatch.setattr(locking, "LOCK_TIMEOUT", 0.05)
    monkeypatch.setattr(locking, "LOCK_PAUSE", 0.05)


@pytest.mark.usefixtures("changing")
async def test_a_migration_behind_a_long_reader_lets_writers_pass_and_is_applied_after_it(
    database: Connection, connect: Connect, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "LOCK_ATTEMPTS", 10_000)
    reader = await connect()
    async with asyncio.TaskGroup() as tasks:
        async with reader.transaction():
            await reader.fetchval("SELECT count(*) FROM job")
            migrating = tasks.create_task(migrate(make_settings(dsn), dsn))

            async def waits() -> bool:
                return bool(
                    await database.fetchval(
                        "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'job'::regclass AND NOT granted)"
                    )
                )

            for number in range(5):
                await until(waits)
                await add(database, f"meanwhile {number}")  # for ever, if the migration kept its place in the queue
            assert not migrating.done()
        assert await migrating == [CHANGE]
    assert await database.fetchval("SELECT count(later) FROM job") == 0


@pytest.mark.usefixtures("changing")
async def test_a_migration_that_never_gets_its_lock_says_so_and_leaves_nothing(
    database: Connection, connect: Connect, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "LOCK_ATTEMPTS", 3)
    reader = await connect()
    async with reader.transaction():
        await reader.fetchval("SELECT count(*) FROM job")
        with pytest.raises(
            DatabaseUnavailable, match=r"migration \d+ \(change\) .* 3 attempts .* run feed migrate again"
        ):
            await migrate(make_settings(dsn), dsn)
    assert await database.fetchval("SELECT max(version) FROM migration") == CHANGE.version - 1
    assert await migrate(make_settings(dsn), dsn) == [CHANGE]


async def test_two_feeds_under_two_names_share_a_database_and_nothing_else(database: Connection, dsn: str) -> None:
    ours = make_settings(dsn, **FAR)
    theirs = make_settings(dsn, schema="other", **FAR)
    await migrate(theirs, dsn)
    hub, other_hub = Hub(ours.hub), Hub(theirs.hub)
    async with (
        opened(dsn, "other") as other,
        running(Sequencer(ours, dsn), Tailer(ours, dsn, hub), Sequencer(theirs, dsn), Tailer(theirs, dsn, other_hub)),
    ):
        await until(lambda: hub.ready and other_hub.ready)
        for number in range(1, 4):
            await add(other, f"theirs {number}")
            await until(lambda: other_hub.head == number)
        await add(database, "ours")
        await until(lambda: hub.head == 1)
    assert [data_of(one.frame)["title"] for one in hub.ring.after(0, 9)] == ["ours"]
    assert [data_of(one.frame)["title"] for one in other_hub.ring.after(0, 9)] == ["theirs 1", "theirs 2", "theirs 3"]


async def test_a_role_that_owns_only_its_schema_is_enough(blank: str, role: str, cluster: Cluster) -> None:
    dsn = await owner_of(blank, role, cluster, f"CREATE SCHEMA feed AUTHORIZATION {role}")
    settings = make_settings(dsn, retention_events=1, log_partition=2, **FAR)
    assert len(await migrate(settings, dsn)) == len(migrations())
    hub = Hub(settings.hub)
    async with opened(dsn) as connection:
        async with running(Sequencer(settings, dsn), Tailer(settings, dsn, hub)):
            await until(lambda: hub.ready)
            for number in range(1, 6):
                await add(connection, "Baker")
                await until(lambda: hub.head == number)
        assert await prune(connection, settings) == 2


@pytest.mark.parametrize(
    "given",
    [
        (),
        ("CREATE SCHEMA feed",),
        ("CREATE SCHEMA feed", "GRANT USAGE ON SCHEMA feed TO {}"),
        ("CREATE SCHEMA feed", "TEMP"),
    ],
    ids=["no schema", "a schema closed to it", "a schema it may only use", "a closed schema and temporary tables"],
)
async def test_a_role_without_rights_is_told_what_to_run(
    blank: str, role: str, cluster: Cluster, given: tuple[str, ...]
) -> None:
    name = blank.rpartition("/")[2]
    grants = [f"GRANT TEMP ON DATABASE {name} TO {role}" if grant == "TEMP" else grant.format(role) for grant in given]
    dsn = await owner_of(blank, role, cluster, *grants)
    with pytest.raises(DatabaseRefused, match="CREATE SCHEMA feed AUTHORIZATION"):
        await migrate(make_settings(dsn), dsn)
    assert await schemas(blank) == []


async def test_a_role_that_may_not_connect_is_told_so(blank: str, role: str, cluster: Cluster) -> None:
    name = blank.rpartition("/")[2]
    async with opened(blank) as admin:
        await admin.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    with pytest.raises(DatabaseRefused, match="a role that may connect"):
        await migrate(make_settings(blank), cluster.dsn(name, role))


async def test_a_database_that_cannot_hold_every_text_is_refused(cluster: Cluster) -> None:
    async with opened(cluster.dsn()) as admin:
        await admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        try:
            dsn = cluster.dsn("latin")
            with pytest.raises(DatabaseRefused, match="encoding is not UTF8; create one with ENCODING 'UTF8'"):
                await migrate(make_settings(dsn), dsn)
            assert await schemas(dsn) == []
        finally:
            await admin.execute("DROP DATABASE latin WITH (FORCE)")


@pytest.mark.parametrize("version", sorted(versions()))
async def test_every_version_of_postgres_at_hand_carries_a_feed(version: int) -> None:
    cluster = Cluster(version)
    try:
        await asyncio.to_thread(lambda: cluster.create().start())
        dsn = cluster.dsn()
        settings = make_settings(dsn, log_partition=2, retention_events=1, **FAR)
        await migrate(settings, dsn)
        async with opened(dsn) as connection:
            job = await add(connection, "Bäcker", tags=["Straße"])
            assert titles(await advanced(connection)) == ["Bäcker"]
            hub = Hub(settings.hub)
            async with running(Sequencer(settings, dsn), Tailer(settings, dsn, hub)):
                await connection.execute("UPDATE job SET salary_min = 1, closed_at = now() WHERE id = $1", job)
                await connection.execute("DELETE FROM job")
                await connection.execute("TRUNCATE job")
                await until(lambda: hub.head == 3)
            events = [(one.kind, data_of(one.frame).get("reason")) for one in hub.ring.after(0, 9)]
            assert events == [("posted", None), ("closed", "closed"), ("closed", "deleted")]
            for text in ("Zürich, İstanbul – Straße", "C++ ﬁnance", "ΟΔΟΣ Москва"):
                row = await connection.fetchrow("SELECT fold($1) AS fold, words($1) AS words", text)
                assert row is not None
                assert tuple(row) == (fold(text), words(text))
            assert await prune(connection, settings) == 1
    finally:
        await asyncio.to_thread(cluster.remove)
