"""Capture: what a write to a table of postings leaves in the log."""

import asyncio
import re
from datetime import UTC, datetime

import asyncpg
import pytest

from feed.model.event import Kind
from feed.model.posting import FIELDS, FILTERED
from tests.conftest import Connect
from tests.postgres.events import Connection, add, advanced, logged, titles

MANY = "INSERT INTO job (title, company, url) SELECT 'job ' || n, 'Acme', 'u' FROM generate_series(1, $1) n"
VERSION = "SELECT version FROM job WHERE id = $1"


async def test_an_insert_is_posted_with_every_field_but_the_description(database: Connection) -> None:
    job = await add(
        database, "Baker", source="site", external_id="7", location="Berlin, Germany", country="Germany",
        workplace="hybrid", employment_type="full-time", seniority="senior", tags=["bread", "night"], salary_min=20,
        salary_max=25.5, currency="EUR", salary_period="hour", description="Dough", latitude=52.5, longitude=13.4,
        posted_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), valid_through=datetime(2036, 1, 2, tzinfo=UTC),
    )  # fmt: skip
    [event] = await advanced(database)
    assert (event.position, event.kind, event.reason, event.was) == (1, Kind.POSTED, None, None)
    assert list(event.job) == list(FIELDS)
    updated_at = event.job.pop("updated_at")
    assert datetime.fromisoformat(updated_at) == await database.fetchval("SELECT updated_at FROM job")
    assert event.job == {
        "id": job, "source": "site", "external_id": "7", "title": "Baker", "company": "Acme",
        "url": "https://acme.example", "location": "Berlin, Germany", "country": "Germany", "workplace": "hybrid",
        "employment_type": "full-time", "seniority": "senior", "tags": ["bread", "night"], "salary_min": 20,
        "salary_max": 25.5, "currency": "EUR", "salary_period": "hour", "latitude": 52.5, "longitude": 13.4,
        "posted_at": "2026-01-02T03:04:05+00:00", "valid_through": "2036-01-02T00:00:00+00:00", "version": 1,
        "closed_at": None,
    }  # fmt: skip


async def test_a_change_of_content_is_updated_and_makes_the_next_version(database: Connection) -> None:
    job = await add(database, "Baker")
    await advanced(database)
    await database.execute("UPDATE job SET title = 'Head baker' WHERE id = $1", job)
    [event] = await advanced(database)
    assert (event.kind, event.reason, event.job["title"], event.job["version"]) == (Kind.UPDATED, None, "Head baker", 2)


async def test_a_changed_description_is_updated_without_what_filters_read(database: Connection) -> None:
    job = await add(database, "Baker", description="old")
    await advanced(database)
    await database.execute("UPDATE job SET description = 'new' WHERE id = $1", job)
    [event] = await advanced(database)
    assert (event.kind, event.was) == (Kind.UPDATED, None)


SEEN_BY_FILTERS = (
    "title = 'b'", "company = 'b'", "location = 'b'", "country = 'b'", "workplace = 'onsite'", "employment_type = 'b'",
    "seniority = 'b'", "tags = '{b}'", "salary_min = 1", "salary_max = 9", "currency = 'USD'", "salary_period = 'day'",
    "latitude = 1, longitude = 1",
)  # fmt: skip
UNSEEN = ("url = 'b'", "source = 'b'", "external_id = 'b'", "posted_at = 'epoch'", "valid_through = '2040-01-01'")


async def test_was_is_there_only_where_filters_see_a_difference(database: Connection) -> None:
    for change in SEEN_BY_FILTERS + UNSEEN:
        job = await add(database, "a", tags=["a"], salary_min=2, salary_max=3, currency="EUR", salary_period="year")
        await database.execute(f"UPDATE job SET {change} WHERE id = $1", job)
        await database.execute("DELETE FROM job")
        before, event, _ = await advanced(database)
        assert event.kind is Kind.UPDATED, change
        seen = {name: before.job[name] for name in FILTERED}
        assert event.was == (seen if change in SEEN_BY_FILTERS else None), change


async def test_a_write_that_changes_nothing_makes_no_event_and_no_version(database: Connection) -> None:
    job = await add(database, "Baker", tags=["bread"], salary_min=1)
    await advanced(database)
    await database.execute("UPDATE job SET title = title, tags = '{bread}', salary_min = 1.00, latitude = NULL")
    await database.execute("UPDATE job SET title = 'x' WHERE false")
    await database.execute("UPDATE job SET version = 7, updated_at = 'epoch'")
    assert await advanced(database) == []
    assert await database.fetchval("SELECT count(*) FROM inbox") == 0
    assert await database.fetchval(VERSION, job) == 1


async def test_a_title_that_comes_back_within_a_transaction_is_two_updates(database: Connection) -> None:
    await add(database, "a")
    await advanced(database)
    async with database.transaction():
        await database.execute("UPDATE job SET title = 'b'")
        await database.execute("UPDATE job SET title = 'a'")
    events = await advanced(database)
    assert [(event.job["title"], event.job["version"]) for event in events] == [("b", 2), ("a", 3)]


async def test_a_posting_is_closed_reopened_and_closed_again(database: Connection) -> None:
    await add(database, "Baker")
    await database.execute("UPDATE job SET closed_at = now()")
    await database.execute("UPDATE job SET closed_at = NULL")
    await database.execute("UPDATE job SET closed_at = now(), title = 'Gone'")
    events = await advanced(database)
    assert [(event.kind, event.reason) for event in events] == [
        (Kind.POSTED, None), (Kind.CLOSED, "closed"), (Kind.POSTED, None), (Kind.CLOSED, "closed"),
    ]  # fmt: skip
    assert [event.job["version"] for event in events] == [1, 2, 3, 4]
    assert [event.job["closed_at"] is None for event in events] == [True, False, True, False]


async def test_a_change_of_a_closed_posting_is_updated(database: Connection) -> None:
    await add(database, "Baker", closed_at=datetime(2026, 1, 1, tzinfo=UTC))
    await database.execute("UPDATE job SET title = 'b'")
    events = await advanced(database)
    assert [(event.kind, event.reason) for event in events] == [(Kind.CLOSED, "closed"), (Kind.UPDATED, None)]


async def test_a_writer_may_say_why_it_closes(database: Connection) -> None:
    await add(database, "Baker")
    async with database.transaction():
        await database.execute("SET LOCAL feed.reason = 'filled'")
        await database.execute("UPDATE job SET closed_at = now()")
    await add(database, "Cook", closed_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert [event.reason for event in await advanced(database)] == [None, "filled", "closed"]


async def test_a_row_that_goes_is_closed_as_deleted(database: Connection) -> None:
    for how in ("DELETE FROM job", "TRUNCATE job", "TRUNCATE job RESTART IDENTITY CASCADE"):
        jobs = {await add(database, "Baker"), await add(database, "Cook")}
        await advanced(database)
        await database.execute(how)
        events = await advanced(database)
        assert [(event.kind, event.reason) for event in events] == [(Kind.CLOSED, "deleted")] * 2
        assert {event.job["id"] for event in events} == jobs


async def test_deleting_or_truncating_nothing_makes_no_event(database: Connection) -> None:
    await database.execute("DELETE FROM job")
    await database.execute("TRUNCATE job")
    assert await advanced(database) == []


async def test_one_transaction_that_inserts_updates_and_deletes_keeps_its_order(database: Connection) -> None:
    async with database.transaction():
        await add(database, "a")
        await database.execute("UPDATE job SET title = 'b'")
        await database.execute("DELETE FROM job")
    assert [(e.kind, e.job["title"]) for e in await advanced(database)] == [
        (Kind.POSTED, "a"), (Kind.UPDATED, "b"), (Kind.CLOSED, "b"),
    ]  # fmt: skip


async def test_an_upsert_posts_what_is_new_and_updates_what_differs(database: Connection) -> None:
    upsert = (
        "INSERT INTO job (source, external_id, title, company, url) "
        "SELECT 's', n::text, t, 'Acme', 'u' FROM unnest($1::int[], $2::text[]) AS v(n, t) "
        "ON CONFLICT (source, external_id) DO UPDATE SET title = excluded.title"
    )
    await database.execute(upsert, [1, 2], ["a", "b"])
    await advanced(database)
    await database.execute(upsert, [1, 2, 3], ["a", "B", "c"])
    events = await advanced(database)
    assert sorted((event.job["external_id"], event.kind) for event in events) == [("2", "updated"), ("3", "posted")]
    await database.execute(upsert.replace("DO UPDATE SET title = excluded.title", "DO NOTHING"), [1, 4], ["x", "d"])
    assert titles(await advanced(database)) == ["d"]


async def test_a_merge_posts_updates_and_closes(database: Connection) -> None:
    if database.get_server_version().major < 15:
        pytest.skip("MERGE came with Postgres 15")
    for number, title in enumerate("abc"):
        await add(database, title, source="s", external_id=str(number))
    await advanced(database)
    await database.execute(
        "MERGE INTO job j USING (VALUES ('0', 'a'), ('1', 'B'), ('2', ''), ('3', 'd')) AS v(external_id, title) "
        "ON j.external_id = v.external_id "
        "WHEN MATCHED AND v.title = '' THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET title = v.title "
        "WHEN NOT MATCHED THEN INSERT (source, external_id, title, company, url) "
        "VALUES ('s', v.external_id, v.title, 'Acme', 'u')"
    )
    events = await advanced(database)
    assert {(event.job["external_id"], event.kind, event.reason) for event in events} == {
        ("1", "updated", None), ("2", "closed", "deleted"), ("3", "posted", None),
    }  # fmt: skip
    assert len(events) == 3


async def test_copy_and_one_insert_of_many_rows_give_one_event_each_in_their_order(database: Connection) -> None:
    await database.copy_records_to_table(
        "job", records=[(f"copied {n}", "Acme", "u") for n in range(500)], columns=("title", "company", "url")
    )
    await database.execute(MANY, 700)
    events = await advanced(database)
    assert titles(events) == [f"copied {n}" for n in range(500)] + [f"job {n}" for n in range(1, 701)]


async def test_a_changed_key_of_a_posting_keeps_its_history(database: Connection) -> None:
    await add(database, "a", source="s", external_id="1")
    await database.execute("UPDATE job SET external_id = '2'")
    assert [event.job["external_id"] for event in await advanced(database)] == ["1", "2"]


async def test_values_over_8000_bytes_pass(database: Connection) -> None:
    tags = [f"{number:03d}" + "x" * 197 for number in range(100)]
    await add(database, "t" * 1000, location="é" * 4000, url="u" * 4000, tags=tags, description="d" * 1_000_000)
    [event] = await advanced(database)
    assert (event.job["tags"], event.job["location"]) == (tags, "é" * 4000)


TEXTS = (
    "Zürich – 東京 🚀", "\u0001\u001f\u007f\u0085", "a\r\nb\u2028c\u2029d", '"\\/', "\U0010ffff\uffff\ufeff",
    "e\u0301", "\\u0000",
)  # fmt: skip


async def test_text_comes_out_as_it_went_in(database: Connection) -> None:
    for text in TEXTS:
        await add(database, text, tags=[text, ""], location=text)
    for text, event in zip(TEXTS, await advanced(database), strict=True):
        assert (event.job["title"], event.job["tags"], event.job["location"]) == (text, [text, ""], text)


async def test_a_role_with_rights_on_the_table_alone_can_write(database: Connection, connect: Connect) -> None:
    await database.execute("CREATE ROLE plain")
    try:
        await database.execute(
            "GRANT USAGE ON SCHEMA feed TO plain; GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON job TO plain"
        )
        writer = await connect()
        await writer.execute("SET ROLE plain")
        await writer.execute("SELECT 1")
        await add(writer, "a")
        await writer.execute("UPDATE feed.job SET title = 'b'")
        await writer.execute("DELETE FROM feed.job")
        await add(writer, "c")
        await writer.execute("TRUNCATE feed.job")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await writer.execute("SELECT * FROM feed.inbox")
        await database.execute("SELECT setval('armed', 1)")
        await add(writer, "d")
        assert [event.kind for event in await advanced(database)] == [
            "posted",
            "updated",
            "closed",
            "posted",
            "closed",
            "posted",
        ]
    finally:
        await database.execute("DROP OWNED BY plain; DROP ROLE plain")


BENDING = (
    "TimeZone = 'Asia/Kathmandu'", "DateStyle = 'SQL, DMY'", "extra_float_digits = -15", "search_path = ''",
    "IntervalStyle = 'sql_standard'", "search_path = 'pg_temp'", "bytea_output = 'escape'", "quote_all_identifiers = on",
    "transform_null_equals = on", "array_nulls = off", "default_transaction_isolation = 'serializable'",
    "row_security = off", "enable_hashjoin = off", "client_encoding = 'LATIN1'",
)  # fmt: skip


async def test_no_setting_of_the_writers_session_bends_the_texts(database: Connection, connect: Connect) -> None:
    insert = (
        "INSERT INTO feed.job (title, company, url, tags, salary_min, latitude, longitude, posted_at, valid_through) "
        "VALUES ('a', 'b', 'c', '{x}', 1.50, 0.1::float8 + 0.2, 1e-7, '2026-07-01T12:00:00.123456Z', '2036-01-01T00:00Z')"
    )
    read = "SELECT job::text AS job, was::text AS was FROM inbox ORDER BY id DESC LIMIT 2"

    async def written(writer: Connection) -> list[str]:
        """The texts of an insert and an update, without what differs by row and by time."""
        await writer.execute(insert)
        await writer.execute("UPDATE feed.job SET title = 'd', updated_at = now()")
        after, before = await database.fetch(read)
        await writer.execute("DELETE FROM feed.job")
        return [re.sub(r"^.\d+,|,\d+,[^,]+,NULL\}$", "", row["job"]) for row in (before, after)] + [after["was"]]

    plain = await written(database)
    assert "0.30000000000000004,1e-07" in plain[0]
    assert '"2026-07-01 12:00:00.123456+00"' in plain[0]
    for setting in BENDING:
        writer = await connect()
        # What the writer's path might put in the way of the trigger's.
        await writer.execute("CREATE TEMP TABLE inbox (id int); CREATE TEMP TABLE armed (last_value int)")
        await writer.execute(f"SET {setting}")
        assert await written(writer) == plain, setting


async def test_a_writer_that_must_not_notify_turns_the_bell_off_for_itself(
    database: Connection, connect: Connect
) -> None:
    await database.execute("SELECT setval('armed', 1)")
    rung: asyncio.Queue[str] = asyncio.Queue()
    await database.add_listener("feed_wake", lambda *_: rung.put_nowait("rung"))
    writer = await connect()
    async with writer.transaction():
        await writer.execute("SET LOCAL feed.doorbell = 'off'")
        await add(writer, "a")
    await writer.execute("SELECT pg_notify('feed_wake', 'end')")
    assert await rung.get() == "rung"
    assert rung.empty()
    await add(writer, "b")
    assert await rung.get() == "rung"
    await database.reset()


async def test_an_unarmed_bell_is_not_rung(database: Connection, connect: Connect) -> None:
    heard: asyncio.Queue[object] = asyncio.Queue()
    await database.add_listener("feed_wake", lambda *message: heard.put_nowait(message[3]))
    writer = await connect()
    await add(writer, "a")
    await writer.execute("SELECT pg_notify('feed_wake', 'end')")
    assert await heard.get() == "end"
    await database.reset()


async def test_a_posting_that_is_given_the_next_id_closes_under_the_old_one(database: Connection) -> None:
    jobs = [await add(database, title) for title in "abc"]
    await advanced(database)
    await database.execute("UPDATE job SET id = DEFAULT WHERE id = $1", jobs[0])
    await database.execute("UPDATE job SET id = DEFAULT, title = 'B', closed_at = now() WHERE id = $1", jobs[1])
    renamed = await database.fetch("SELECT id FROM job WHERE id > $1 ORDER BY id", jobs[2])
    new = [row["id"] for row in renamed]
    events = await advanced(database)
    assert sorted((event.kind, event.reason, event.job["id"], event.job["title"]) for event in events[:2]) == [
        ("closed", "deleted", jobs[0], "a"), ("posted", None, new[0], "a"),
    ]  # fmt: skip
    assert sorted((event.kind, event.reason, event.job["id"], event.job["title"]) for event in events[2:]) == [
        ("closed", "closed", new[1], "B"), ("closed", "deleted", jobs[1], "b"),
    ]  # fmt: skip
    assert [event.was for event in events] == [None] * 4


async def test_a_rolled_back_write_leaves_nothing(database: Connection) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        async with database.transaction():
            await add(database, "a", external_id="1")
            await add(database, "b", external_id="1")
    assert await advanced(database) == []
    assert await logged(database) == []


async def test_the_capture_function_cannot_be_hung_on_somebody_elses_table(
    database: Connection, connect: Connect
) -> None:
    await database.execute("CREATE ROLE stranger; GRANT USAGE ON SCHEMA feed TO stranger")
    try:
        theirs = await connect()
        await theirs.execute("SET ROLE stranger; CREATE TEMP TABLE trap (id int)")
        with pytest.raises(
            asyncpg.InsufficientPrivilegeError, match=r"permission denied for function feed\.capture_job"
        ):
            await theirs.execute(
                "CREATE TRIGGER t AFTER INSERT ON trap REFERENCING NEW TABLE AS new_rows "
                "FOR EACH STATEMENT EXECUTE FUNCTION feed.capture_job()"
            )
    finally:
        await database.execute("DROP OWNED BY stranger; DROP ROLE stranger")


async def test_a_bulk_update_after_a_small_one_is_planned_for_many(database: Connection) -> None:
    await database.execute("INSERT INTO job (title, company, url) SELECT 'a', 'b', 'c' FROM generate_series(1, 30000)")
    await database.execute("UPDATE job SET title = 'x' WHERE id = 1")
    # Quadratic, it would take minutes: the plan of the first update is kept for the session.
    await database.execute("SET statement_timeout = '60s'")
    await database.execute("UPDATE job SET title = 'y'")
    assert await database.fetchval("SELECT count(*) FROM inbox WHERE kind = 'updated'") == 30001
