"""Writers of every shape on an attached table, at random, beside the sequencer, comparisons and expiry."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import date

import asyncpg
import pytest

from feed.database.comparison import compare
from feed.database.retention import expire
from feed.settings.log import LogSettings
from tests.conftest import Connect
from tests.postgres.attaching import attached, compared, spec
from tests.postgres.events import Connection, advance, advanced, dense, logged

KEYS = 16
"""So few keys that writers meet, and that a key comes back after its row was deleted."""
MONTHS = ("2026-01-05", "2026-02-05")
COLUMNS = """
  id text NOT NULL, headline text, firm text DEFAULT 'Acme', link text DEFAULT 'https://a.example/1', city text,
  active boolean NOT NULL DEFAULT true, hits integer NOT NULL DEFAULT 0, ends timestamptz, month date NOT NULL
"""
# A trigger of the owner's writes to the table itself.
MARK = """
CREATE FUNCTION shop.mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  UPDATE shop.vacancies SET headline = headline || '!' WHERE id = NEW.id; RETURN NULL; END $$;
CREATE TRIGGER mark AFTER INSERT ON shop.vacancies FOR EACH ROW WHEN (NEW.headline LIKE '%7') EXECUTE FUNCTION shop.mark()
"""
TABLES = {
    "plain": f"CREATE SCHEMA shop; CREATE TABLE shop.vacancies ({COLUMNS}, PRIMARY KEY (id)); {MARK}",
    "partitioned": f"""
      CREATE SCHEMA shop; CREATE TABLE shop.vacancies ({COLUMNS}, PRIMARY KEY (id, month)) PARTITION BY RANGE (month);
      CREATE TABLE shop.leaf_0 PARTITION OF shop.vacancies FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
      CREATE TABLE shop.leaf_1 PARTITION OF shop.vacancies FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')
    """,
}
OPERATIONS = {
    "insert": 20, "several": 6, "upsert": 20, "update": 16, "many": 8, "nothing": 6, "close": 8, "reopen": 8, "ends": 12,
    "rename": 8, "swap": 3, "move": 8, "delete": 7, "truncate": 0.4, "bypass": 4, "untitle": 4,
}  # fmt: skip


class Shop:
    """A writer: transactions of every shape, one after the other."""

    def __init__(self, connection: Connection, rng: random.Random, *, leaves: bool) -> None:
        self._connection = connection
        self._rng = rng
        self._leaves = leaves

    async def write(self, name: str) -> None:
        """One transaction; one that gets in another's way is rolled back."""
        rng, execute = self._rng, self._connection.execute
        await execute(
            f"BEGIN ISOLATION LEVEL {rng.choice(('READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE'))}; "
            "SET LOCAL lock_timeout = '50ms'"
        )
        try:
            prepared = rng.random() < 0.15
            if prepared:
                await execute("SET LOCAL feed.doorbell = off")
            for number in range(rng.choice((1, 1, 2, 4))):
                undo = rng.random() < 0.2
                await execute(f"SAVEPOINT s{number}")
                await self._operate()
                await execute(f"{'ROLLBACK TO' if undo else 'RELEASE'} s{number}")
            if prepared:
                await execute(f"PREPARE TRANSACTION '{name}'")
                await asyncio.sleep(rng.uniform(0, 0.02))
                await execute(f"{rng.choice(('COMMIT', 'COMMIT', 'ROLLBACK'))} PREPARED '{name}'")
            else:
                await execute(rng.choice(("COMMIT", "COMMIT", "COMMIT", "ROLLBACK")))
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.LockNotAvailableError, asyncpg.SerializationError,
                asyncpg.DeadlockDetectedError):  # fmt: skip
            await execute("ROLLBACK")

    async def _operate(self) -> None:
        rng, execute = self._rng, self._connection.execute
        key, other = (str(number) for number in rng.sample(range(KEYS), 2))
        month = rng.choice(MONTHS)
        title = f"Title {rng.randrange(1000)}"
        table = "shop.vacancies"
        if self._leaves and rng.random() < 0.3:
            table = f"shop.leaf_{MONTHS.index(month)}"
        match rng.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]:
            case "insert":
                await execute(
                    f"INSERT INTO {table} (id, headline, month) VALUES ('{key}', '{title}', '{month}') "
                    "ON CONFLICT DO NOTHING"
                )
            case "several":
                await self._connection.copy_records_to_table(
                    table.removeprefix("shop."), schema_name="shop", columns=["id", "headline", "month"],
                    records=[(f"{title}.{n}", title, date.fromisoformat(month)) for n in range(rng.randint(2, 30))],
                )  # fmt: skip
            case "upsert":
                on = "id, month" if self._leaves else "id"
                await execute(
                    f"INSERT INTO {table} (id, headline, month) VALUES ('{key}', '{title}', '{month}') "
                    f"ON CONFLICT ({on}) DO UPDATE SET headline = excluded.headline, city = 'Ulm', active = true"
                )
            case "update":
                await execute(f"UPDATE {table} SET headline = '{title}', hits = hits + 1 WHERE id = '{key}'")
            case "many":
                await execute(f"UPDATE {table} SET city = '{title}' WHERE id < '{key}'")
            case "nothing":
                await execute(f"UPDATE {table} SET hits = hits + 1, headline = headline WHERE id = '{key}'")
            case "close":
                await execute(f"UPDATE {table} SET active = false WHERE id = '{key}'")
            case "reopen":
                await execute(f"UPDATE {table} SET active = true, ends = NULL WHERE id = '{key}'")
            case "ends":
                after = rng.choice(("-1 second", "30 milliseconds", "1 day"))
                await execute(f"UPDATE {table} SET ends = clock_timestamp() + interval '{after}' WHERE id = '{key}'")
            case "rename":
                await execute(f"UPDATE {table} SET id = '{other}' WHERE id = '{key}'")
            case "swap":
                await execute(f"UPDATE {table} SET id = '~' WHERE id = '{key}'")
                await execute(f"UPDATE {table} SET id = '{key}' WHERE id = '{other}'")
                await execute(f"UPDATE {table} SET id = '{other}' WHERE id = '~'")
            case "move":
                await execute(f"UPDATE shop.vacancies SET month = '{month}' WHERE id = '{key}'")
            case "delete":
                await execute(f"DELETE FROM {table} WHERE id = '{key}' OR id LIKE 'Title%'")
            case "truncate":
                await execute(f"TRUNCATE {table}")
            case "bypass":
                await execute("SET LOCAL session_replication_role = replica")
                await execute(f"UPDATE {table} SET headline = '{title}' WHERE id = '{key}'")
                await execute(f"DELETE FROM {table} WHERE id = '{other}'")
                await execute("SET LOCAL session_replication_role = origin")
            case "untitle":
                await execute(f"UPDATE {table} SET headline = NULL WHERE id = '{key}'")


async def repeated(work: Callable[[], Awaitable[object]], stop: asyncio.Event) -> None:
    """Do it again and again, as the service does."""
    while not stop.is_set():
        await work()
        await asyncio.sleep(0.003)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", list(TABLES))
async def test_whatever_writers_do_the_mirror_comes_to_equal_the_table_and_the_log_the_mirror(
    database: Connection, connect: Connect, kind: str, seed: int
) -> None:
    await database.execute(TABLES[kind])
    key = ("id", "month") if kind == "partitioned" else ("id",)
    number = await attached(database, spec(key=key, fields={"valid_through": "ends", "location": "city"}))
    # As where somebody else owns the table: who sets session_replication_role bypasses them.
    for row in await database.fetch(
        "SELECT format('ALTER TABLE ONLY %s ENABLE TRIGGER %I', tgrelid::regclass, tgname) FROM pg_trigger "
        "WHERE tgname LIKE 'feed\\_1\\_%'"
    ):
        await database.execute(row[0])
    rng, stop = random.Random(seed), asyncio.Event()
    advancing, comparing, expiring = [await connect() for _ in range(3)]
    shops = [Shop(await connect(), random.Random(rng.random()), leaves=kind == "partitioned") for _ in range(4)]

    async def write(shop: int) -> None:
        for turn in range(60):
            await shops[shop].write(f"{seed}.{kind}.{shop}.{turn}")

    async with asyncio.TaskGroup() as tasks:
        sequencer = tasks.create_task(
            repeated(lambda: advance(advancing, rng.choice((1, 3, 50, 1000))), asyncio.Event())
        )
        async with asyncio.TaskGroup() as others:  # a comparison may wait for the sequencer
            others.create_task(repeated(lambda: compare(comparing, "feed", number, LogSettings()), stop))
            others.create_task(repeated(lambda: expire(expiring), stop))
            async with asyncio.TaskGroup() as writing:
                for shop in range(len(shops)):
                    writing.create_task(write(shop))
            stop.set()
        sequencer.cancel()
    advancing.terminate()
    await advanced(database)
    await compared(database, number)
    while await database.fetchval(
        "SELECT EXISTS (SELECT FROM shop.vacancies WHERE ends BETWEEN clock_timestamp() AND clock_timestamp() + '1 hour')"
    ):
        await asyncio.sleep(0.01)
    await expire(database)
    await advanced(database)

    external = "json_build_array(id, month::text)::text" if kind == "partitioned" else "id"
    truth = await database.fetch(
        f"SELECT {external}, headline, city, active AND (ends IS NULL OR ends > clock_timestamp()) FROM shop.vacancies "
        "WHERE headline IS NOT NULL"
    )
    mirror = await database.fetch("SELECT id, external_id, title, location, closed_at IS NULL, version FROM job")
    assert {tuple(row) for row in truth} == {tuple(row)[1:5] for row in mirror}

    events = await logged(database)
    assert dense(events)
    held: dict[int, tuple[str, str | None, bool, int]] = {}
    for event in events:
        job = event.job["id"]
        state = (event.job["title"], event.job["location"], event.job["closed_at"] is None, event.job["version"])
        if event.kind == "posted":
            assert job not in held or not held[job][2], event
        else:
            assert job in held or event.reason == "closed", event
            assert job not in held or (event.kind == "closed") == (event.reason is not None), event
            assert job not in held or state[3] >= held[job][3] + (event.reason != "deleted"), event
        held[job] = state
        if event.reason == "deleted":
            del held[job]
    assert {(job, *state) for job, state in held.items()} == {(row[0], *tuple(row)[2:]) for row in mirror}
