"""Attached tables: rows of somebody else's table become postings, whatever writes them."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from feed.database.attach import detach, equip
from feed.database.retention import expire
from feed.errors import ConfigurationError
from tests.conftest import Connect
from tests.postgres.attaching import ONE, TWO, attached, compared, postings, spec, told
from tests.postgres.events import Connection, add, advanced, logged
from tests.waiting import until


async def test_each_change_of_a_row_is_an_event_in_the_order_of_the_writes(vacancies: Connection) -> None:
    await attached(vacancies)
    await vacancies.execute("INSERT INTO shop.vacancies (id, headline, city) VALUES ($1, 'Baker', 'Ulm')", ONE)
    await add(vacancies, "ours")
    await vacancies.execute("UPDATE shop.vacancies SET hits = hits + 1")
    await vacancies.execute("UPDATE shop.vacancies SET headline = 'Cook'")
    await vacancies.execute("UPDATE shop.vacancies SET active = false")
    await vacancies.execute("UPDATE shop.vacancies SET active = true")
    await vacancies.execute("DELETE FROM shop.vacancies")
    events = await advanced(vacancies)
    assert told(events) == [
        ("posted", None, "Baker"), ("posted", None, "ours"), ("updated", None, "Cook"), ("closed", "closed", "Cook"),
        ("posted", None, "Cook"), ("closed", "deleted", "Cook"),
    ]  # fmt: skip
    first, changed = events[0].job, events[2]
    assert (first["source"], first["external_id"], first["location"]) == ("shop.vacancies", ONE, "Ulm, DE")
    assert {event.job["id"] for event in events if event.job["source"] == "shop.vacancies"} == {first["id"]}
    assert [event.job["version"] for event in events if event.job["source"] == "shop.vacancies"] == [1, 2, 3, 4, 4]
    assert changed.was is not None
    assert changed.was["title"] == "Baker"
    assert await postings(vacancies) == {}


async def test_every_statement_that_writes_is_captured(vacancies: Connection) -> None:
    await attached(vacancies)
    upsert = (
        "INSERT INTO shop.vacancies (id, headline) VALUES ($1, $2) "
        "ON CONFLICT (id) DO UPDATE SET headline = excluded.headline"
    )  # fmt: skip
    await vacancies.execute(upsert, ONE, "a")
    await vacancies.execute(upsert, ONE, "b")
    await vacancies.copy_records_to_table(
        "vacancies", schema_name="shop", records=[(TWO, "c")], columns=["id", "headline"]
    )
    await vacancies.execute(f"UPDATE shop.vacancies SET id = gen_random_uuid() WHERE id = '{TWO}'")
    await vacancies.execute(
        "MERGE INTO shop.vacancies v USING (VALUES ('b', 'b+'), ('new', 'd')) s(old, new) ON v.headline = s.old "
        "WHEN MATCHED THEN UPDATE SET headline = s.new WHEN NOT MATCHED THEN INSERT (headline) VALUES (s.new)"
    )
    events = told(await advanced(vacancies))
    assert events[:3] == [("posted", None, "a"), ("updated", None, "b"), ("posted", None, "c")]
    assert sorted(events[3:5]) == [("closed", "deleted", "c"), ("posted", None, "c")]
    assert sorted(events[5:]) == [("posted", None, "d"), ("updated", None, "b+")]
    await vacancies.execute("TRUNCATE shop.vacancies")
    assert len(await advanced(vacancies)) == 3
    assert await postings(vacancies) == {}


async def test_truncate_by_an_old_snapshot_closes_what_it_does_not_see(vacancies: Connection, connect: Connect) -> None:
    await attached(vacancies)
    other = await connect()
    await vacancies.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await vacancies.fetch("SELECT FROM shop.vacancies")
    await other.execute("INSERT INTO shop.vacancies (headline) VALUES ('unseen')")
    await vacancies.execute("TRUNCATE shop.vacancies")
    await vacancies.execute("INSERT INTO shop.vacancies (headline) VALUES ('after')")
    await vacancies.execute("COMMIT")
    await advanced(other)
    assert list((await postings(other)).values()) == ["after"]


async def test_a_table_with_more_rows_than_one_step_closes_is_truncated(vacancies: Connection) -> None:
    await vacancies.execute("INSERT INTO shop.vacancies (headline) SELECT n FROM generate_series(1, 5200) n")
    await attached(vacancies)
    await vacancies.execute("TRUNCATE shop.vacancies")
    await vacancies.execute("INSERT INTO shop.vacancies (headline) VALUES ('after')")
    events = await advanced(vacancies)
    assert (len(events), events[-1].kind) == (5201, "posted")
    assert list((await postings(vacancies)).values()) == ["after"]


async def test_columns_may_be_renamed_added_and_dropped_but_what_the_map_reads_is_kept(vacancies: Connection) -> None:
    number = await attached(vacancies)
    await vacancies.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'a')", ONE)
    await vacancies.execute("ALTER TABLE shop.vacancies RENAME headline TO heading")
    await vacancies.execute("ALTER TABLE shop.vacancies ADD note text")
    await vacancies.execute("ALTER TABLE shop.vacancies ALTER skills TYPE varchar(50)[]")
    await vacancies.execute("ALTER TABLE shop.vacancies DROP hits")
    await vacancies.execute("UPDATE shop.vacancies SET heading = 'b'")
    for refused in ("DROP link", "ALTER link TYPE varchar(100)"):
        with pytest.raises(asyncpg.PostgresError, match="posting_of_1_vacancies"):
            await vacancies.execute(f"ALTER TABLE shop.vacancies {refused}")
    await vacancies.execute("ALTER TABLE shop.vacancies RENAME id TO number")
    await vacancies.execute("ALTER TABLE shop.vacancies RENAME TO openings")
    await vacancies.execute("ALTER TABLE shop.openings SET SCHEMA public")
    await vacancies.execute("UPDATE public.openings SET heading = 'c'")
    await equip(vacancies, "feed", number)
    await vacancies.execute("UPDATE public.openings SET heading = 'd'")
    await advanced(vacancies)
    assert await postings(vacancies) == {ONE: "d"}
    await vacancies.execute("INSERT INTO public.openings (number, heading) VALUES ($1, 'e')", TWO)
    await advanced(vacancies)
    await compared(vacancies, number)
    assert await postings(vacancies) == {ONE: "d", TWO: "e"}


PARTITIONED = """
CREATE SCHEMA shop;
CREATE TABLE shop.vacancies (id uuid NOT NULL DEFAULT gen_random_uuid(), month date NOT NULL, headline text,
  firm text DEFAULT 'Acme', link text DEFAULT 'https://a.example/1', city text, active boolean NOT NULL DEFAULT true,
  PRIMARY KEY (month, id)) PARTITION BY RANGE (month);
CREATE TABLE shop.january PARTITION OF shop.vacancies FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE shop.february (active boolean NOT NULL DEFAULT true, old text, link text DEFAULT 'https://a.example/2',
  city text, headline text, month date NOT NULL, firm text DEFAULT 'Other', id uuid NOT NULL DEFAULT gen_random_uuid());
ALTER TABLE shop.february DROP old;
ALTER TABLE shop.vacancies ATTACH PARTITION shop.february FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')
"""


async def test_partitions_are_captured_through_the_table_and_by_themselves(database: Connection) -> None:
    await database.execute(PARTITIONED)
    await database.execute("INSERT INTO shop.vacancies (month, headline) VALUES ('2026-01-05', 'old')")
    number = await attached(database, spec(key=("month", "id")))
    await database.execute("INSERT INTO shop.vacancies (month, headline) VALUES ('2026-02-05', 'a')")
    await database.execute("INSERT INTO shop.february (month, headline) VALUES ('2026-02-06', 'b')")
    await database.execute("UPDATE shop.january SET headline = 'older'")
    await database.execute("UPDATE shop.vacancies SET month = '2026-01-07' WHERE headline = 'a'")
    await advanced(database)
    events = told(await logged(database))
    assert events[:4] == [
        ("posted", "backfill", "old"), ("posted", None, "a"), ("posted", None, "b"), ("updated", None, "older"),
    ]  # fmt: skip
    assert sorted(events[4:]) == [("closed", "deleted", "a"), ("posted", None, "a")]  # the month is part of its key
    await database.execute(
        "CREATE TABLE shop.march PARTITION OF shop.vacancies FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')"
    )
    await database.execute("INSERT INTO shop.march (month, headline) VALUES ('2026-03-01', 'missed')")
    await database.execute("ALTER TABLE shop.vacancies DETACH PARTITION shop.february")
    assert "shop.march" in await equip(database, "feed", number)
    await database.execute("INSERT INTO shop.march (month, headline) VALUES ('2026-03-01', 'seen')")
    await advanced(database)
    await compared(database, number)
    assert sorted((await postings(database)).values()) == ["a", "missed", "older", "seen"]
    await database.execute("TRUNCATE shop.march")
    await compared(database, number)
    assert sorted((await postings(database)).values()) == ["a", "older"]
    await database.execute("TRUNCATE shop.vacancies")
    await advanced(database)
    assert await postings(database) == {}


async def test_children_that_inherit_from_a_table_are_captured(vacancies: Connection) -> None:
    await vacancies.execute("CREATE TABLE shop.remote (zone text) INHERITS (shop.vacancies)")
    number = await attached(vacancies)
    await vacancies.execute("INSERT INTO shop.remote (id, headline, zone) VALUES ($1, 'a', 'CET')", ONE)
    await vacancies.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'b')", TWO)
    await vacancies.execute("UPDATE shop.vacancies SET headline = headline || '+'")
    await advanced(vacancies)
    assert await postings(vacancies) == {ONE: "a+", TWO: "b+"}
    await vacancies.execute("TRUNCATE ONLY shop.vacancies")
    await compared(vacancies, number)
    assert await postings(vacancies) == {ONE: "a+"}


@pytest.mark.parametrize(
    ("column", "value", "key"),
    [
        ("id bigint PRIMARY KEY", "7", "7"),
        ("id text PRIMARY KEY", "'Ä \"x\" 1'", 'Ä "x" 1'),
        ("id timestamptz PRIMARY KEY", "'2026-01-02 03:04:05.5+01'", "2026-01-02 02:04:05.5+00"),
        ("id char(5) PRIMARY KEY", "'ab'", "ab"),
    ],
)
async def test_a_key_of_any_type_is_the_external_id(database: Connection, column: str, value: str, key: str) -> None:
    await database.execute(f"CREATE TABLE public.own ({column}, headline text, firm text, link text, city text)")
    await database.execute(f"INSERT INTO public.own VALUES ({value}, 'a', 'f', 'https://a.example')")
    await database.execute("SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'")
    number = await attached(database, spec("public.own", closed=None))
    await database.execute("UPDATE public.own SET headline = 'b'")
    await advanced(database)
    await compared(database, number)
    assert await postings(database, "public.own") == {key: "b"}
    await database.execute("DELETE FROM public.own")
    await advanced(database)
    assert await postings(database, "public.own") == {}


@pytest.mark.parametrize("time", ["20260-01-01", "0044-03-15 BC", "infinity"])
async def test_times_that_no_client_could_read_are_left_out(vacancies: Connection, time: str) -> None:
    await vacancies.execute(
        "ALTER TABLE shop.vacancies ADD since timestamptz, ADD ends timestamptz, ADD gone timestamptz"
    )
    fields = {"posted_at": "since", "valid_through": "ends"}
    await attached(vacancies, spec(fields=fields, closed="gone", closed_is_time=True))
    await vacancies.execute(
        f"INSERT INTO shop.vacancies (headline, since, ends, gone) VALUES ('a', '{time}', '{time}', '{time}')"
    )
    [event] = await advanced(vacancies)
    assert event.job["valid_through"] is None
    past = "BC" in time
    assert event.kind == ("closed" if past else "posted")
    for name in ("posted_at", "closed_at") if past else ("posted_at",):
        assert abs(datetime.fromisoformat(event.job[name]) - datetime.now(UTC)) < timedelta(hours=1)


async def test_on_error_abort_refuses_the_write_instead(vacancies: Connection) -> None:
    await attached(vacancies, spec(on_error="abort", fields={"salary_min": "1 / pay"}))
    with pytest.raises(asyncpg.DivisionByZeroError):
        await vacancies.execute("INSERT INTO shop.vacancies (headline, pay) VALUES ('a', 0)")


async def test_the_owners_triggers_may_write_to_the_table_themselves(vacancies: Connection) -> None:
    await vacancies.execute(
        "CREATE FUNCTION shop.mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE shop.vacancies SET headline = headline || '!' WHERE id = NEW.id; RETURN NULL; END $$; "
        "CREATE TRIGGER mark AFTER INSERT ON shop.vacancies FOR EACH ROW EXECUTE FUNCTION shop.mark()"
    )
    number = await attached(vacancies)
    await vacancies.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'a')", ONE)
    async with vacancies.transaction():
        await vacancies.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'b')", TWO)
        await vacancies.execute("UPDATE shop.vacancies SET headline = headline || '?' WHERE id = $1", ONE)
        await vacancies.execute("DELETE FROM shop.vacancies WHERE id = $1", TWO)
    await advanced(vacancies)
    assert await postings(vacancies) == {ONE: "a!?"}
    assert (await compared(vacancies, number)).made == 0


async def test_writers_need_no_rights_in_feeds_schema(vacancies: Connection, connect: Connect) -> None:
    await attached(vacancies)
    await vacancies.execute(
        "CREATE ROLE clerk; GRANT USAGE ON SCHEMA shop TO clerk; GRANT ALL ON shop.vacancies TO clerk"
    )
    try:
        theirs = await connect()
        await theirs.execute("SET ROLE clerk; SET search_path = ''")
        await theirs.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'a')", ONE)
        await advanced(vacancies)
        assert await postings(vacancies) == {ONE: "a"}
    finally:
        await vacancies.execute("DROP OWNED BY clerk; DROP ROLE clerk")


async def test_a_session_that_fires_no_triggers_is_seen_where_feed_owns_the_table(vacancies: Connection) -> None:
    await attached(vacancies)
    await vacancies.execute("SET session_replication_role = replica")
    await vacancies.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'a')", ONE)
    await vacancies.execute("RESET session_replication_role")
    await advanced(vacancies)
    assert await postings(vacancies) == {ONE: "a"}


async def test_a_transaction_that_wrote_to_the_table_can_be_prepared_while_the_sequencer_sleeps(
    vacancies: Connection,
) -> None:
    await attached(vacancies)
    await vacancies.execute("SELECT setval('armed', 1)")
    await vacancies.execute("BEGIN")
    await vacancies.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'a')", ONE)
    await vacancies.execute("PREPARE TRANSACTION 'prepared vacancies'")
    await vacancies.execute("COMMIT PREPARED 'prepared vacancies'")
    await advanced(vacancies)
    assert await postings(vacancies) == {ONE: "a"}


async def test_nested_statements_read_single_rows_so_that_others_can_serialize(
    vacancies: Connection, connect: Connect
) -> None:
    await vacancies.execute(
        "INSERT INTO shop.vacancies (headline, city) SELECT n, 'Ulm' FROM generate_series(1, 5000) n; "
        "ANALYZE shop.vacancies; "
        "CREATE FUNCTION shop.mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "UPDATE shop.vacancies SET headline = headline || '!' WHERE id = NEW.id; RETURN NULL; END $$; "
        "CREATE TRIGGER mark AFTER INSERT ON shop.vacancies FOR EACH ROW EXECUTE FUNCTION shop.mark()"
    )
    await attached(vacancies)
    other = await connect()
    for one, key in ((vacancies, ONE), (other, TWO)):
        await one.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        await one.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'a')", key)
    locked = await vacancies.fetch(
        "SELECT relation::regclass::text, locktype, count(*) FROM pg_locks WHERE mode = 'SIReadLock' GROUP BY 1, 2"
    )
    assert all(row["locktype"] != "relation" and row["count"] < 10 for row in locked), locked
    await vacancies.execute("COMMIT")
    await other.execute("COMMIT")


async def test_expiry_leaves_a_posting_whose_event_is_on_its_way_to_that(vacancies: Connection) -> None:
    await vacancies.execute("ALTER TABLE shop.vacancies ADD ends timestamptz")
    await attached(vacancies, spec(fields={"valid_through": "ends"}))
    insert = (
        "INSERT INTO shop.vacancies (headline, ends) VALUES ('a', clock_timestamp() + interval '0.1 s') RETURNING ends"
    )
    ends = await vacancies.fetchval(insert)
    await advanced(vacancies)
    await vacancies.execute("UPDATE shop.vacancies SET city = 'Ulm'")
    await until(lambda: vacancies.fetchval("SELECT clock_timestamp() > $1", ends))
    assert await expire(vacancies) == 0
    await advanced(vacancies)
    await expire(vacancies)
    events = await logged(vacancies)
    assert [event.job["version"] for event in events] == list(range(1, len(events) + 1))
    assert (str(events[-1].kind), events[-1].reason, events[-1].job["location"]) == ("closed", "expired", "Ulm, DE")


async def test_postings_of_an_attached_table_are_written_there_alone(vacancies: Connection) -> None:
    await attached(vacancies)
    await vacancies.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'a')", ONE)
    await advanced(vacancies)
    for write in (
        "INSERT INTO job (source, title, company, url) VALUES ('shop.vacancies', 'x', 'y', 'z')",
        "UPDATE job SET title = 'x'", "DELETE FROM job",
    ):  # fmt: skip
        with pytest.raises(asyncpg.PostgresError, match=r"attached table shop\.vacancies: write there") as refused:
            await vacancies.execute(write)
        assert refused.value.sqlstate == "FD001"
    await add(vacancies, "ours")


@pytest.mark.parametrize("keep", [False, True])
async def test_detach_leaves_nothing_on_the_table_and_closes_its_postings_or_keeps_them(
    vacancies: Connection, keep: bool
) -> None:
    number = await attached(vacancies)
    await vacancies.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'a'), ($2, 'b')", ONE, TWO)
    assert await detach(vacancies, "feed", number, keep=keep) == (0 if keep else 2)
    await vacancies.execute("UPDATE shop.vacancies SET headline = 'c'")
    await vacancies.execute("ALTER TABLE shop.vacancies DROP link")
    await advanced(vacancies)
    assert len(await postings(vacancies)) == (2 if keep else 0)
    left = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'feed%' AND tgrelid = 'shop.vacancies'::regclass"
    assert await vacancies.fetchval(left) == 0
    assert (
        await vacancies.fetchval("SELECT count(*) FROM pg_proc WHERE proname ~ '^(capture|map|key_of|posting_of)_1'")
        == 0
    )
    await vacancies.execute("UPDATE job SET title = 'ours now'")
    await vacancies.execute("DROP TABLE shop.vacancies")


async def test_a_source_that_others_use_is_not_taken(vacancies: Connection) -> None:
    await add(vacancies, "ours", source="shop.vacancies", external_id=ONE)
    with pytest.raises(ConfigurationError, match="--source"):
        await attached(vacancies)


async def test_rows_that_the_condition_leaves_out_are_no_postings(vacancies: Connection) -> None:
    await attached(vacancies, spec(where="hits < 5"))
    await vacancies.execute(
        "INSERT INTO shop.vacancies (id, headline, hits) VALUES ($1, 'a', 9), ($2, 'b', 1)", ONE, TWO
    )
    await vacancies.execute("UPDATE shop.vacancies SET hits = 10 - hits")
    assert told(await advanced(vacancies))[0] == ("posted", None, "b")
    assert await postings(vacancies) == {ONE: "a"}


async def test_a_row_that_closes_at_a_time_to_come_is_open_until_then(vacancies: Connection) -> None:
    await vacancies.execute("ALTER TABLE shop.vacancies ADD ends timestamptz")
    await attached(vacancies, spec(closed="ends", closed_is_time=True))
    await vacancies.execute(
        "INSERT INTO shop.vacancies (headline, ends) VALUES ('past', now() - interval '1 day'), ('never', 'infinity'), "
        "('later', now() + interval '1 day')"
    )
    await advanced(vacancies)
    rows = await vacancies.fetch("SELECT title, closed_at < now() AS closed, valid_through > now() AS ends FROM job")
    assert {row["title"]: (row["closed"], row["ends"]) for row in rows} == {
        "past": (True, None), "never": (None, None), "later": (None, True),
    }  # fmt: skip
