"""Triggers of the user's own that write to the table they stand on: each posting's events come in its order."""

import itertools
import random
from typing import Any

import asyncpg
import pytest

from feed.model.event import Event
from tests.conftest import Connect
from tests.postgres.events import Connection, add, advanced, logged

Row = dict[str, Any]


async def trigger(connection: Connection, when: str, body: str, name: str = "own", table: str = "job") -> None:
    """Create a trigger of the user's own, with statements for its body."""
    await connection.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN coalesce(NEW, OLD); END $$;"
        f'CREATE TRIGGER "{name}" {when.replace("ON job", f"ON {table}")} EXECUTE FUNCTION {name}()'
    )


def told(events: list[Event]) -> list[tuple[str, str, int]]:
    """Kind, title and version of each event."""
    return [(event.kind, event.job["title"], event.job["version"]) for event in events]


async def check(connection: Connection, batch: int = 10_000) -> list[Event]:
    """Sequence all; each posting's events must be a possible life that ends as the table has it. Returns the new events."""
    new = await advanced(connection, batch)
    held: dict[int, Event] = {}
    for event in await logged(connection):
        job = event.job["id"]
        if event.kind == "posted":
            assert job not in held or held[job].job["closed_at"] is not None, event
        else:
            assert job in held, event
            assert event.job["version"] >= held[job].job["version"], event
        held[job] = event
        if event.reason == "deleted":
            del held[job]
    rows = await connection.fetch("SELECT id, title, version FROM job ORDER BY id")
    assert [tuple(row) for row in rows] == sorted(
        (job, event.job["title"], event.job["version"]) for job, event in held.items()
    )
    return new


async def test_a_row_that_its_own_trigger_deletes_is_posted_and_then_closed(database: Connection) -> None:
    await trigger(database, "AFTER INSERT ON job FOR EACH ROW", "DELETE FROM job WHERE id = NEW.id;")
    await add(database, "a")
    assert told(await check(database)) == [("posted", "a", 1), ("closed", "a", 1)]


async def test_a_row_that_its_own_trigger_updates_is_posted_and_then_updated(database: Connection) -> None:
    await trigger(
        database, "AFTER INSERT ON job FOR EACH ROW", "UPDATE job SET title = title || '+' WHERE id = NEW.id;"
    )
    await database.execute("INSERT INTO job (title, company, url) SELECT t, 'c', 'u' FROM unnest('{a,b,c}'::text[]) t")
    events = await check(database)
    for job in {event.job["id"] for event in events}:
        mine = told([event for event in events if event.job["id"] == job])
        title = mine[0][1]
        assert mine == [("posted", title, 1), ("updated", f"{title}+", 2)]


async def test_what_filters_read_before_an_update_moves_along_with_it(database: Connection) -> None:
    await trigger(
        database, "AFTER UPDATE ON job FOR EACH ROW WHEN (NEW.title = 'b')",
        "UPDATE job SET title = 'c' WHERE id = NEW.id;",
    )  # fmt: skip
    await add(database, "a")
    await database.execute("UPDATE job SET title = 'b'")
    events = await check(database)
    assert told(events) == [("posted", "a", 1), ("updated", "b", 2), ("updated", "c", 3)]
    assert [event.was and event.was["title"] for event in events] == [None, "a", "b"]


@pytest.mark.parametrize("batch", [1, 2, 3, 1000])
async def test_several_levels_of_triggers_unfold_in_their_order(database: Connection, batch: int) -> None:
    await trigger(
        database, "AFTER INSERT OR UPDATE ON job FOR EACH ROW WHEN (length(NEW.title) < 5)",
        "UPDATE job SET title = title || '+' WHERE id = NEW.id;",
    )  # fmt: skip
    await trigger(
        database, "AFTER UPDATE ON job FOR EACH ROW WHEN (length(NEW.title) = 5)",
        "DELETE FROM job WHERE id = NEW.id;", "own_end",
    )  # fmt: skip
    async with database.transaction():
        await add(database, "before", company="x")
        await add(database, "a")
        await add(database, "behind", company="x")
    events = [event for event in await check(database, batch) if event.job["company"] == "Acme"]
    assert told(events) == [
        ("posted", "a", 1), ("updated", "a+", 2), ("updated", "a++", 3), ("updated", "a+++", 4),
        ("updated", "a++++", 5), ("closed", "a++++", 5),
    ]  # fmt: skip


async def test_a_trigger_that_updates_another_row_of_the_statement_keeps_both_in_order(database: Connection) -> None:
    first, second = await add(database, "a"), await add(database, "b")
    await trigger(
        database, "AFTER UPDATE ON job FOR EACH ROW WHEN (NEW.title NOT LIKE '%!')",
        f"UPDATE job SET title = title || '!' WHERE id = {first} + {second} - NEW.id AND title NOT LIKE '%!';",
    )  # fmt: skip
    await database.execute("UPDATE job SET title = title || '.'")
    events = (await check(database))[2:]
    assert {event.job["id"]: told([e for e in events if e.job["id"] == event.job["id"]]) for event in events} == {
        first: [("updated", "a.", 2), ("updated", "a.!", 3)], second: [("updated", "b.", 2), ("updated", "b.!", 3)],
    }  # fmt: skip


async def test_a_nested_upsert_comes_after_the_insert_that_it_meets(database: Connection) -> None:
    upsert = (
        "INSERT INTO job (source, external_id, title, company, url) VALUES ('s', '1', {}, 'c', 'u') "
        "ON CONFLICT (source, external_id) DO UPDATE SET title = excluded.title || '+'"
    )
    await trigger(
        database, "AFTER INSERT ON job FOR EACH ROW", upsert.format("NEW.title") + ";"
    )  # its own insert conflicts, and ends the recursion
    await database.execute(upsert.format("'a'"))
    await database.execute(upsert.format("'b'"))
    assert told(await check(database)) == [("posted", "a", 1), ("updated", "a+", 2), ("updated", "b+", 3)]


async def test_an_upsert_whose_trigger_changes_what_it_updated_keeps_its_order(database: Connection) -> None:
    await trigger(
        database, "AFTER UPDATE ON job FOR EACH ROW WHEN (NEW.title NOT LIKE '%!')",
        "UPDATE job SET title = NEW.title || '!' WHERE id = NEW.id;",
    )  # fmt: skip
    upsert = (
        "INSERT INTO job (source, external_id, title, company, url) SELECT 's', n, $1, 'c', 'u' "
        "FROM unnest($2::text[]) n ON CONFLICT (source, external_id) DO UPDATE SET title = excluded.title"
    )
    async with database.transaction():
        await database.execute(upsert, "a", ["1"])
        await database.execute(upsert, "b", ["1", "2"])
        await database.execute(upsert, "c", ["1", "2"])
    events = await check(database)
    assert told([event for event in events if event.job["external_id"] == "1"]) == [
        ("posted", "a", 1), ("updated", "b", 2), ("updated", "b!", 3), ("updated", "c", 4), ("updated", "c!", 5),
    ]  # fmt: skip


async def test_a_row_that_makes_room_for_its_successor_is_closed_before_that_is_posted(database: Connection) -> None:
    insert = "INSERT INTO job (id, title, company, url) OVERRIDING SYSTEM VALUE VALUES"
    await trigger(database, "BEFORE INSERT ON job FOR EACH ROW", "DELETE FROM job WHERE id = NEW.id;", "room")
    await database.execute(f"{insert} (1, 'a', 'c', 'u')")
    await database.execute(f"{insert} (1, 'b', 'c', 'u')")
    await trigger(
        database, "AFTER INSERT ON job FOR EACH ROW", "UPDATE job SET title = title || '+' WHERE id = NEW.id;",
        "behind",
    )  # fmt: skip
    await database.execute(f"{insert} (1, 'c', 'c', 'u')")
    await trigger(database, "AFTER INSERT ON job FOR EACH ROW", "DELETE FROM job WHERE id = NEW.id;", "end_it")
    await database.execute(f"{insert} (1, 'd', 'c', 'u')")
    assert [event[:2] for event in told(await advanced(database))] == [
        ("posted", "a"), ("closed", "a"), ("posted", "b"), ("closed", "b"), ("posted", "c"), ("updated", "c+"),
        ("closed", "c+"), ("posted", "d"), ("updated", "d+"), ("closed", "d+"),
    ]  # fmt: skip


async def test_a_statement_that_fails_within_a_trigger_leaves_the_rest_in_order(database: Connection) -> None:
    await trigger(
        database, "AFTER INSERT ON job FOR EACH ROW",
        "UPDATE job SET title = 'b' WHERE id = NEW.id; "
        "BEGIN UPDATE job SET title = '' WHERE id = NEW.id; EXCEPTION WHEN check_violation THEN NULL; END; "
        "UPDATE job SET title = 'c' WHERE id = NEW.id;",
    )  # fmt: skip
    async with database.transaction():
        await add(database, "a")
        with pytest.raises(asyncpg.CheckViolationError):
            async with database.transaction():
                await database.execute("UPDATE job SET title = ''")
        await database.execute("UPDATE job SET title = 'd'")
    assert told(await check(database)) == [
        ("posted", "a", 1),
        ("updated", "b", 2),
        ("updated", "c", 3),
        ("updated", "d", 4),
    ]


async def test_what_a_trigger_of_another_table_wrote_before_stays_before(database: Connection) -> None:
    await database.execute("CREATE TABLE company (name text)")
    job = await add(database, "a")
    await trigger(
        database,
        "AFTER INSERT ON job FOR EACH ROW",
        f"UPDATE job SET title = NEW.name WHERE id = {job};",
        "own",
        "company",
    )
    async with database.transaction():
        await database.execute("INSERT INTO company VALUES ('b')")
        await database.execute("UPDATE job SET title = 'c'")
        await database.execute("INSERT INTO company VALUES ('d')")
        await database.execute("DELETE FROM job")
    assert told(await check(database)) == [
        ("posted", "a", 1), ("updated", "b", 2), ("updated", "c", 3), ("updated", "d", 4), ("closed", "d", 4),
    ]  # fmt: skip


async def test_many_rows_whose_triggers_write_are_put_in_order_in_reasonable_time(database: Connection) -> None:
    await trigger(
        database, "AFTER INSERT ON job FOR EACH ROW", "UPDATE job SET title = title || '+' WHERE id = NEW.id;"
    )
    # Quadratic, either would take minutes.
    await database.execute("SET statement_timeout = '60s'")
    await database.execute("INSERT INTO job (title, company, url) SELECT 'a', 'b', 'c' FROM generate_series(1, 5000)")
    await database.execute(
        "DO $$ BEGIN FOR n IN 1..5000 LOOP INSERT INTO job (title, company, url) VALUES ('a', 'b', 'c'); END LOOP; END $$"
    )
    assert len(await check(database)) == 20_000


@pytest.mark.parametrize("seed", range(4))
async def test_random_triggers_and_transactions_end_as_the_table_does(
    database: Connection, connect: Connect, seed: int
) -> None:
    dice = random.Random(seed)
    body = (
        "IF pg_trigger_depth() < 4 AND random() < 0.6 THEN CASE floor(random() * 4)::int "
        "WHEN 0 THEN UPDATE job SET title = title || 'u' WHERE id = NEW.id; "
        "WHEN 1 THEN DELETE FROM job WHERE id = NEW.id; "
        "WHEN 2 THEN UPDATE job SET title = title || 'o' WHERE id IN (SELECT id FROM job ORDER BY random() LIMIT 2); "
        "ELSE INSERT INTO job (source, external_id, title, company, url) "
        "VALUES ('s', floor(random() * 5)::text, 'n', 'c', 'u') "
        "ON CONFLICT (source, external_id) DO UPDATE SET title = job.title || 'c'; END CASE; END IF;"
    )
    await database.execute(f"SELECT setseed({seed / 10})")
    await trigger(database, "AFTER INSERT OR UPDATE ON job FOR EACH ROW", body)
    for number in itertools.count():
        if number == 25:
            break
        async with database.transaction():
            for _ in range(dice.randint(1, 4)):
                await database.execute(
                    dice.choice(
                        [
                            "INSERT INTO job (title, company, url) SELECT 'r', 'c', 'u' FROM generate_series(1, 3)",
                            "UPDATE job SET title = left(title, 20) || '.' WHERE id IN (SELECT id FROM job LIMIT 3)",
                            "INSERT INTO job (source, external_id, title, company, url) VALUES ('s', '1', 'x', 'c', 'u') "
                            "ON CONFLICT (source, external_id) DO UPDATE SET title = left(job.title, 20) || 'x'",
                            "DELETE FROM job WHERE id IN (SELECT id FROM job ORDER BY id LIMIT 1)",
                        ]
                    )
                )
        await check(database, dice.randint(1, 9))


@pytest.mark.parametrize("name", ["a_first", "stamp2", "zz_last"])
async def test_what_a_later_trigger_makes_of_a_row_is_a_version_too(database: Connection, name: str) -> None:
    await trigger(database, "BEFORE UPDATE ON job FOR EACH ROW", "NEW.location := NEW.title || ' town';", name)
    await add(database, "a", location="old")
    await database.execute("UPDATE job SET title = title")
    await database.execute("UPDATE job SET title = title")
    events = await check(database)
    assert [(event.kind, event.job["location"], event.job["version"]) for event in events] == [
        ("posted", "old", 1), ("updated", "a town", 2),
    ]  # fmt: skip
