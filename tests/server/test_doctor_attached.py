"""What keeps an attached table from being seen is found, and the advice mends it."""

import asyncpg
import pytest

from feed.database.attach import detach
from feed.doctor.finding import Finding, Verdict
from tests.postgres.attaching import VACANCIES, attached, compared
from tests.postgres.events import Connection, opened
from tests.server.attach_commands import done
from tests.server.examining import examined

CHECK = "attached shop.vacancies"


async def findings(dsn: str, check: str = CHECK) -> list[Finding]:
    return (await examined(dsn))[check]


async def the_one(dsn: str) -> Finding:
    (finding,) = await findings(dsn)
    return finding


async def mended(dsn: str, statements: str) -> None:
    """Run what a finding advises, as an administrator, and look again."""
    async with opened(dsn, "public") as administrator:
        await administrator.execute(statements)
    finding = await the_one(dsn)
    assert finding.verdict is Verdict.OK, finding


async def test_a_healthy_table_tells_its_numbers_and_why_rows_make_no_posting(database: Connection, dsn: str) -> None:
    await database.execute(VACANCIES)
    await database.execute("INSERT INTO shop.vacancies (headline) VALUES ('Baker'), ('Cook'), (NULL)")
    await attached(database)
    finding = await the_one(dsn)
    assert finding.verdict is Verdict.OK
    assert finding.found.startswith("3 rows, 2 open postings, compared ")
    assert finding.found.endswith("1 rows make no posting, most because it has no title")
    assert "feed.job" in (await findings(dsn, "triggers"))[0].found  # and of the attached table nothing there


async def test_a_table_without_attachments_is_no_finding(dsn: str) -> None:
    assert not [check for check in await examined(dsn) if check.startswith("attached")]


async def test_a_trigger_that_is_missing_on_a_partition_or_disabled_is_found(database: Connection, dsn: str) -> None:
    await database.execute(
        "CREATE SCHEMA shop; CREATE TABLE shop.vacancies (id bigint PRIMARY KEY, headline text, firm text, link text, "
        "city text, active boolean) PARTITION BY RANGE (id); "
        "CREATE TABLE shop.low PARTITION OF shop.vacancies FOR VALUES FROM (0) TO (100)"
    )
    number = await attached(database)
    await database.execute("CREATE TABLE shop.high PARTITION OF shop.vacancies FOR VALUES FROM (100) TO (200)")
    finding = await the_one(dsn)
    assert finding.verdict is Verdict.FAIL
    assert finding.found == "shop.high has no trigger for insert, update, delete, truncate: such changes are not seen"
    assert "Start feed serve: it makes them. Or run feed attach shop.vacancies again." in finding.todo
    await database.execute("DROP TABLE shop.high; ALTER TABLE shop.low DISABLE TRIGGER USER")
    finding = await the_one(dsn)
    assert (finding.verdict, "disabled on shop.low" in finding.found) == (Verdict.FAIL, True)
    await mended(dsn, finding.todo)
    await detach(database, "feed", number)


async def test_who_bypasses_triggers_is_found_only_where_they_do_not_always_fire(
    database: Connection, dsn: str
) -> None:
    await database.execute(VACANCIES)
    await attached(database)
    await database.execute('CREATE ROLE "data Loader"; ALTER ROLE "data Loader" SET session_replication_role = replica')
    try:
        assert (await the_one(dsn)).verdict is Verdict.OK  # feed's role owns the table, and its triggers always fire
        await database.execute("ALTER TABLE shop.vacancies ENABLE TRIGGER USER")
        finding = await the_one(dsn)
        assert finding.verdict is Verdict.WARN
        assert 'session_replication_role is replica for ROLE "data Loader"' in finding.found
        assert 'ALTER ROLE "data Loader" RESET session_replication_role;' in finding.todo
        await mended(dsn, finding.todo.partition("of the table: ")[2])
    finally:
        await database.execute('DROP ROLE "data Loader"')


async def test_a_subscription_that_writes_to_the_table_is_found(database: Connection, dsn: str) -> None:
    await database.execute(VACANCIES)
    await attached(database)
    await database.execute(
        "CREATE SUBSCRIPTION elsewhere CONNECTION 'dbname=none' PUBLICATION none WITH (connect = false)"
    )
    try:
        # What CREATE SUBSCRIPTION would note, had it reached the publisher.
        await database.execute(
            "UPDATE pg_subscription SET subenabled = true, subslotname = NULL WHERE subname = 'elsewhere';"
            "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate) "
            "SELECT oid, 'shop.vacancies'::regclass, 'r' FROM pg_subscription WHERE subname = 'elsewhere'"
        )
        finding = await the_one(dsn)
        assert (finding.verdict, "the subscription elsewhere writes to it" in finding.found) == (Verdict.WARN, True)
    finally:
        await database.execute(
            "UPDATE pg_subscription SET subenabled = false WHERE subname = 'elsewhere'; DROP SUBSCRIPTION elsewhere"
        )


async def test_columns_and_tables_that_went_by_force_are_found(database: Connection, dsn: str) -> None:
    await database.execute(VACANCIES)
    await attached(database)
    with pytest.raises(asyncpg.DependentObjectsStillExistError, match="depend"):
        await database.execute("ALTER TABLE shop.vacancies DROP COLUMN city")
    await database.execute("ALTER TABLE shop.vacancies DROP COLUMN city CASCADE")
    found = await the_one(dsn)
    assert (found.verdict, "does not have any more: city" in found.found) == (Verdict.FAIL, True)
    assert "feed attach shop.vacancies --map FIELD=EXPR" in found.todo
    await done(dsn, "attach", "shop.vacancies", "--map", "location=NULL", "--yes")
    await compared(database, await database.fetchval("SELECT max(id) FROM attachment"))
    assert (await the_one(dsn)).verdict is Verdict.OK
    await database.execute("DROP TABLE shop.vacancies CASCADE")
    gone = await the_one(dsn)
    assert (gone.verdict, "the table was dropped" in gone.found) == (Verdict.FAIL, True)
    assert "feed detach shop.vacancies" in gone.todo
    await done(dsn, "detach", "shop.vacancies")


async def test_what_waits_to_be_compared_is_told_with_its_reason(database: Connection, dsn: str) -> None:
    await database.execute(VACANCIES)
    number = await attached(database)
    await database.execute(
        "INSERT INTO attachment_doubt (attachment, why) VALUES ($1, 'a write could not be captured')", number
    )
    waits = await the_one(dsn)
    assert (waits.verdict, waits.found) == (Verdict.WARN, "a write could not be captured")
    assert "Start feed serve" in waits.todo
    await compared(database, number)
    assert (await the_one(dsn)).verdict is Verdict.OK
    await database.execute("UPDATE attachment SET broken = 'the map fails: no such function'")
    broken = await the_one(dsn)
    assert (broken.verdict, broken.found) == (Verdict.FAIL, "it cannot be compared: the map fails: no such function")
    await database.execute("UPDATE attachment SET broken = NULL, ending = true")
    assert "Run feed detach shop.vacancies again" in (await the_one(dsn)).todo


async def test_rights_that_were_taken_away_are_found(database: Connection, dsn: str) -> None:
    await database.execute(VACANCIES)
    await attached(database)
    await database.execute(
        "CREATE ROLE stranger LOGIN; GRANT USAGE ON SCHEMA feed TO stranger; "
        "GRANT SELECT ON ALL TABLES IN SCHEMA feed TO stranger"
    )
    try:
        await database.execute("ALTER TABLE shop.vacancies ENABLE ROW LEVEL SECURITY")
        found = await findings(dsn.replace("postgres@", "stranger@"))
        assert any(
            "lacks rights to it" in one.found and "GRANT SELECT, TRIGGER ON shop.vacancies" in one.todo for one in found
        )
        assert any("row security" in one.found and "BYPASSRLS" in one.todo for one in found)
    finally:
        await database.execute("DROP OWNED BY stranger; DROP ROLE stranger")
