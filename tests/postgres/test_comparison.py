"""Comparing an attached table with its postings: the first postings, and what capture did not see."""

import asyncio

import pytest

from feed.database.attach import attach, detach
from feed.database.attachments import attached_tables
from feed.database.comparison import Comparison, compare
from feed.database.table_shape import describe
from feed.errors import ConfigurationError, DatabaseUnavailable
from feed.settings.log import LogSettings
from tests.conftest import Connect
from tests.postgres.attaching import ONE, TWO, attached, compared, postings, spec
from tests.postgres.events import Connection, add, advanced, logged
from tests.waiting import until


async def test_what_is_there_already_becomes_postings_that_are_told_as_backfill(vacancies: Connection) -> None:
    await vacancies.execute(
        "INSERT INTO shop.vacancies (headline, active) SELECT 'job ' || n, n % 10 > 0 FROM generate_series(1, 2500) n"
    )
    await attached(vacancies)
    events = await logged(vacancies)
    assert len(events) == 2500
    assert {event.reason for event in events} == {"backfill"}
    assert sum(event.kind == "closed" for event in events) == 250
    assert len(await postings(vacancies)) == 2250
    [table] = await attached_tables(vacancies)
    assert (table.rows, table.open, table.bad, table.doubts, table.read) == (2500, 2250, 0, 0, None)
    await compared(vacancies, table.number)
    assert len(await logged(vacancies)) == 2500


async def test_a_write_succeeds_although_its_row_cannot_be_mapped_and_is_found_later(vacancies: Connection) -> None:
    wanted = spec(fields={"salary_min": "100 / nullif(pay, 13) / CASE WHEN pay = 0 THEN pay ELSE 1 END"})
    number = await attached(vacancies, wanted)
    await vacancies.execute("INSERT INTO shop.vacancies (headline, pay) VALUES ('a', 4), ('b', 0), ('c', 5)")
    await vacancies.execute("INSERT INTO shop.vacancies (headline, pay) VALUES ('', 4), ('d', 4)")
    await advanced(vacancies)
    assert sorted((await postings(vacancies)).values()) == ["d"]
    [table] = await attached_tables(vacancies)
    assert table.doubt is not None
    assert "division by zero (22012)" in table.doubt
    await compared(vacancies, number)
    assert sorted((await postings(vacancies)).values()) == ["a", "c", "d"]
    [table] = await attached_tables(vacancies)
    assert (table.doubts, table.bad, table.broken) == (0, 2, None)
    reasons = await vacancies.fetch("SELECT why FROM attachment_bad ORDER BY why")
    assert [row["why"] for row in reasons] == ["division by zero", "it has no title"]


async def test_a_comparison_leaves_rows_whose_event_is_on_its_way_to_that(
    vacancies: Connection, connect: Connect
) -> None:
    number = await attached(vacancies)
    await vacancies.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'a')", ONE)
    await advanced(vacancies)
    other = await connect()
    await other.execute("BEGIN")
    await other.execute("UPDATE shop.vacancies SET headline = 'b'")
    await vacancies.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'x')", TWO)
    assert (await compared(vacancies, number)).made == 0
    await other.execute("COMMIT")
    assert (await compared(vacancies, number)).made == 0
    await advanced(vacancies)
    assert await postings(vacancies) == {ONE: "b", TWO: "x"}


async def test_a_reason_to_compare_that_comes_up_during_a_comparison_leads_to_another(
    vacancies: Connection, connect: Connect
) -> None:
    number = await attached(vacancies)
    early, late = await connect(), await connect()
    doubt = "INSERT INTO attachment_doubt (attachment, why) VALUES ($1, $2)"
    await early.execute("BEGIN")
    await early.execute(doubt, number, "open while the comparison begins")
    await late.execute(doubt, number, "before the comparison")

    async def commit() -> None:
        await early.execute("COMMIT")

    ended: list[asyncio.Task[None]] = []

    def told(going: Comparison) -> None:
        if not ended:
            ended.append(asyncio.create_task(commit()))

    await compare(vacancies, "feed", number, LogSettings(), told)
    await asyncio.gather(*ended)
    reasons = await vacancies.fetch("SELECT why FROM attachment_doubt")
    assert [row["why"] for row in reasons] == ["open while the comparison begins"]


async def waiting(database: Connection, pid: int) -> bool:
    """Whether a backend waits for a lock."""
    return bool(await database.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid))


async def test_a_comparison_that_waits_for_the_sequencer_does_not_hold_it_up(
    vacancies: Connection, connect: Connect
) -> None:
    number = await attached(vacancies)
    comparing = await connect()
    async with vacancies.transaction():
        await vacancies.execute("SELECT FROM state FOR UPDATE")
        task = asyncio.create_task(compare(comparing, "feed", number, LogSettings()))
        await until(lambda: waiting(vacancies, comparing.get_server_pid()))
        await vacancies.execute(
            "INSERT INTO attachment_bad (attachment, key, why) VALUES ($1, 'a', 'no title')", number
        )
    await task


async def test_a_comparison_that_falls_silent_is_ended_by_the_database(
    vacancies: Connection, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = await attached(vacancies)
    monkeypatch.setattr("feed.database.comparison._SILENCE", 0.2)
    silent = await connect()
    backend = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)"

    class Stopped:
        """A connection whose process stops after each answer."""

        def __getattr__(self, name: str) -> object:
            return getattr(silent, name)

        async def fetchrow(self, *query: object) -> object:
            answer = await silent.fetchrow(*query)
            if silent.is_in_transaction():
                await until(lambda: vacancies.fetchval(backend, silent.get_server_pid()))
            return answer

    with pytest.raises(DatabaseUnavailable):
        await compare(Stopped(), "feed", number, LogSettings())
    await vacancies.execute("SELECT FROM state FOR UPDATE NOWAIT")


async def test_truncating_feeds_own_table_closes_the_postings_and_they_come_back(vacancies: Connection) -> None:
    number = await attached(vacancies)
    await vacancies.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'a')", ONE)
    await advanced(vacancies)
    await vacancies.execute("TRUNCATE job")
    await advanced(vacancies)
    await compared(vacancies, number)
    assert [str(event.kind) for event in await logged(vacancies)] == ["posted", "closed", "posted"]
    assert await postings(vacancies) == {ONE: "a"}


@pytest.mark.parametrize("column", ["link", "id"])
async def test_a_map_that_was_dropped_breaks_neither_writes_nor_other_tables(
    vacancies: Connection, column: str
) -> None:
    number = await attached(vacancies)
    await vacancies.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'a')", ONE)
    await advanced(vacancies)
    await vacancies.execute(f"ALTER TABLE shop.vacancies DROP {column} CASCADE")
    await vacancies.execute("UPDATE shop.vacancies SET headline = 'b'")
    assert await compare(vacancies, "feed", number, LogSettings()) is None
    [table] = await attached_tables(vacancies)
    assert table.broken is not None
    assert f"no column {column} any more" in table.broken
    assert await postings(vacancies) == {ONE: "a"}
    assert await detach(vacancies, "feed", number) == 1


async def test_postings_that_are_taken_over_and_have_no_row_are_closed_whatever_their_external_id(
    vacancies: Connection,
) -> None:
    await add(vacancies, "no row", source="shop.vacancies", external_id=TWO)
    await add(vacancies, "no key", source="shop.vacancies", external_id="x")
    await add(vacancies, "old", source="shop.vacancies", external_id=ONE)
    await vacancies.execute("INSERT INTO shop.vacancies (id, headline) VALUES ($1, 'new')", ONE)
    await advanced(vacancies)
    number = await attach(vacancies, "feed", spec(), await describe(vacancies, "shop.vacancies"), adopt=True)
    await compared(vacancies, number)
    assert await postings(vacancies) == {ONE: "new"}
    await add(vacancies, "nameless", source="other")
    with pytest.raises(ConfigurationError, match="no external_id"):
        other = spec(source="other")
        await detach(vacancies, "feed", number)
        await attach(vacancies, "feed", other, await describe(vacancies, "shop.vacancies"), adopt=True)
