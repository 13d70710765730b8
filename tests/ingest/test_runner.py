"""Runs of a source on a real database: what they write, what they leave alone, and what is left when they are cut off."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from feed.database.source_writing import Superseded
from feed.errors import Fault
from feed.ingest.adapter import BadPosting, FetchError, Terms
from feed.ingest.changes import CHUNK
from feed.ingest.intervals import Intervals
from feed.ingest.runner import Report
from feed.model.source import Counts
from feed.model.source_run import Claim
from feed.settings.settings import load_settings
from tests.conftest import Connect, make_settings
from tests.ingest.fake_board import QUICK, FakeAdapter, Rig, rigged
from tests.ingest.fault_server import answer, fault_server
from tests.postgres.events import Connection, advanced
from tests.waiting import until

PAST, FUTURE = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
async def rig(dsn: str, database: Connection) -> AsyncIterator[Rig]:
    async with rigged(make_settings(dsn, **QUICK), database, FakeAdapter()) as made:
        yield made


async def test_the_first_run_is_a_backfill_and_later_ones_write_changed_rows_alone(rig: Rig) -> None:
    rig.board.hold(1, 2, 3)
    assert (await rig.run()).changes == Counts(posted=3)
    events = await advanced(rig.database)
    assert [(event.kind, event.reason) for event in events] == [("posted", "backfill")] * 3
    assert not (await rig.run()).changes
    rig.board.jobs = {"1": {}, "2": {"title": "new"}, "3": {}, "4": {}}
    assert (await rig.run()).changes == Counts(posted=1, updated=1)
    events = await advanced(rig.database)
    assert sorted((event.kind, event.job["external_id"], event.reason) for event in events) == [
        ("posted", "4", None),
        ("updated", "2", None),
    ]
    source = await rig.source()
    assert (source.total, source.last_change, source.open) == (Counts(4, 1, 0), Counts(1, 1, 0), 4)


async def test_a_first_run_that_fails_leaves_the_next_one_the_first_and_waits_as_it_was_told(rig: Rig) -> None:
    rig.board.raises = FetchError("it answered 500", "server", 500)
    assert (await rig.run()).error == "it answered 500"
    rig.board.raises = FetchError("it answered 429", "rate_limited", 429, retry_after=50_000)
    await rig.run()
    assert 49_000 < (await rig.runs.next_due() or 0) <= 50_000
    rig.board.raises = None
    rig.board.hold(1)
    await rig.run()
    assert [event.reason for event in await advanced(rig.database)] == ["backfill"]


async def test_what_a_person_closed_stays_closed_and_what_had_expired_opens_with_a_new_end(rig: Rig) -> None:
    rig.board.jobs = {"closed": {}, "expired": {"valid_through": FUTURE}, "over": {"valid_through": PAST}}
    await rig.run()
    assert await rig.open() == ["closed", "expired"]  # what was over before we saw it was never open here
    await rig.database.execute("UPDATE job SET closed_at = now()")
    await rig.database.execute("UPDATE source_posting SET expires_at = $1 WHERE external_id = 'expired'", PAST)
    rig.board.jobs = {"closed": {"title": "new"}, "expired": {"valid_through": FUTURE + timedelta(days=1)}}
    assert (await rig.run()).changes == Counts(updated=2)
    assert await rig.open() == ["expired"]


async def test_bad_postings_are_left_out_counted_and_kept_with_their_faults(rig: Rig) -> None:
    """Also one that only the database refuses, among many that it takes in the same transaction."""
    await rig.database.execute("ALTER TABLE job ADD CONSTRAINT polite CHECK (title <> 'rude')")
    rig.board.jobs = {str(number): {} for number in range(9)} | {"refused": {"title": "rude"}}
    rig.board.bad = tuple(BadPosting(f"b{n}", [Fault(f"f{m}", "x" * 999) for m in range(9)]) for n in range(30))
    report = await rig.run()
    assert (report.error, report.changes, report.found, report.bad) == (None, Counts(posted=9), 40, 31)
    source = await rig.source()
    assert (source.state, source.bad, len(source.faults)) == ("ok", 31, 20)
    assert {len(row.faults) for row in source.faults} == {5}
    assert {len(fault.message) for row in source.faults for fault in row.faults} == {300}
    rig.board.bad = ()
    await rig.run()
    assert [row.external_id for row in (await rig.source()).faults] == ["refused"]


async def test_an_adapter_that_is_off_runs_only_where_it_was_switched_on(rig: Rig) -> None:
    rig.adapter.off = "its terms forbid it"
    rig.board.hold(1)
    assert "its terms forbid it" in ((await rig.run()).error or "")
    await rig.add("other", switched_on=True)
    rig.adapter.boards["other"].hold(1)
    assert (await replace(rig, name="fake:other").run()).changes.posted == 1


async def test_the_terms_of_a_source_are_kept_up_to_date(rig: Rig) -> None:
    rig.board.hold(1)
    rig.adapter.terms = Terms("Link to Acme", 3600.0, syndicate=False)
    await rig.run()
    source = await rig.source()
    assert (source.attribution, source.min_interval, source.syndicate) == ("Link to Acme", 3600.0, False)
    assert 3500 < (await rig.runs.next_due() or 0) <= 3960


async def test_a_list_that_was_applied_in_whole_is_compared_and_any_other_is_fetched_again(rig: Rig) -> None:
    async with fault_server() as server:
        server.answers["/"] = answer(b"1", etag='"1"')
        rig.board.address = server.url("/")
        rig.board.hold(1, 2, 3, 4)
        await rig.run()
        server.answers["/"] = answer(b"2", etag='"2"')
        rig.board.hold(2, 3, 4)
        await rig.run()
        assert server.asked[-1].headers["if-none-match"] == '"1"'
        # A 304 says the same as the list that lacked it, but only a whole one closes: so it is not offered.
        await rig.run()
        assert "if-none-match" not in server.asked[-1].headers
        assert await rig.open() == ["2", "3", "4"]
        server.answers["/"] = answer(b"", status=304)
        report = await rig.run()
        assert (report.error, report.found) == (None, None)
        assert server.asked[-1].headers["if-none-match"] == '"2"'
        await rig.database.execute("UPDATE source SET validated_by = '0.0.1'")  # which may have read it otherwise
        server.answers["/"] = answer(b"2", etag='"2"')
        assert (await rig.run()).found == 3
        assert "if-none-match" not in server.asked[-1].headers
        server.answers["/"] = answer(b"2")  # the same bytes, of a server that knows no ETag
        rig.board.hold(2, 3, 4, 5)  # nobody looks
        assert (await rig.run()).found is None
        server.answers["/"] = answer(b"3", etag='"3"')
        rig.board.hold()
        assert (await rig.run()).suspect
        await rig.run()
        assert "if-none-match" not in server.asked[-1].headers


@asynccontextmanager
async def held_at(rig: Rig, connect: Connect, external_id: int) -> AsyncIterator[asyncio.Task[Report]]:
    """A run of the source that has written all transactions before that posting, and waits in the one that writes it."""
    holder = await connect()
    inserting = holder.transaction()
    await inserting.start()
    await holder.execute(
        "INSERT INTO job (source, external_id, title, company, url) VALUES ($1, $2, 't', 'c', 'https://a.example')",
        rig.name, str(external_id),
    )  # fmt: skip
    run = asyncio.create_task(rig.runner.run(await rig.claimed()))
    await until(lambda: waiting(rig))
    try:
        yield run
    finally:
        await inserting.rollback()


async def waiting(rig: Rig, statements: int = 1) -> bool:
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return int(await rig.database.fetchval(waits)) >= statements


async def test_a_run_that_is_cancelled_leaves_nothing_half_written_and_the_next_one_goes_on(
    rig: Rig, connect: Connect
) -> None:
    count = 4 * CHUNK
    rig.board.hold(*range(count))
    await rig.database.execute(
        "UPDATE source SET validated_url = 'https://acme.example/', digest = '', validated_by = ''"
    )
    async with held_at(rig, connect, 2 * CHUNK + 7) as run:
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    await rig.database.execute("UPDATE source SET claim = NULL, claimed_until = NULL")  # as the schedule does
    assert await rig.database.fetchval("SELECT count(*) FROM job") == 2 * CHUNK
    assert await rig.database.fetchval("SELECT count(*) FROM source_posting") == 2 * CHUNK
    source = await rig.source()
    assert (source.running, source.succeeded_at, source.total) == (False, None, Counts(posted=2 * CHUNK))
    (claim,) = await rig.runs.claim(1, 60)  # due as before
    assert claim.validators is None  # a list as it was before would not be the one that is half applied
    await rig.runner.run(claim)
    assert (await rig.source()).total == Counts(posted=count)
    events = await advanced(rig.database)
    assert Counter((event.kind, event.reason) for event in events) == {("posted", "backfill"): count}


async def test_a_source_that_is_removed_while_it_runs_leaves_no_open_posting(rig: Rig, connect: Connect) -> None:
    rig.board.hold(*range(6 * CHUNK))
    async with held_at(rig, connect, 2 * CHUNK + 7) as run:
        removal = asyncio.create_task(rig.sources.remove(rig.name))
        await until(lambda: waiting(rig, 2))
    await run
    assert await removal > 0
    assert await rig.open() == []
    with pytest.raises(Superseded):
        await rig.runs.mark(await _claim_of_nobody(rig), ["1"], 1)


async def _claim_of_nobody(rig: Rig) -> Claim:
    await rig.add("acme")
    claim = await rig.claimed()
    await rig.sources.remove(rig.name)
    return claim


async def test_a_run_that_takes_too_long_is_an_error_and_frees_its_source(dsn: str, database: Connection) -> None:
    settings = make_settings(dsn, **QUICK, ingest_run_timeout=0.05)
    async with rigged(settings, database, FakeAdapter()) as rig:
        rig.board.gate = asyncio.Event()
        assert "FEED_INGEST_RUN_TIMEOUT" in ((await rig.run()).error or "")
        assert not (await rig.source()).running


async def test_after_any_churn_the_feed_holds_what_the_board_holds_and_its_events_are_the_scripts(rig: Rig) -> None:
    """Postings come, change, go, come back and flicker; every list is complete, or fails and changes nothing."""
    dice = random.Random(9)
    expected = Counter[str]()
    board: dict[str, int] = {str(number): 0 for number in range(40)}
    missing: dict[str, int] = {}
    posted = dict(board)
    expected["posted"] = len(board)
    number = len(board)
    rig.board.jobs = {one: {} for one in board}
    await rig.run()
    for _ in range(40):
        for _ in range(dice.randrange(4)):
            board[str(number)] = 0
            number += 1
        for one in dice.sample(sorted(board), dice.randrange(4)):
            board[one] += 1
        for one in dice.sample(sorted(board), dice.randrange(4)):
            del board[one]
        for one in dice.sample(sorted(set(posted) - set(board)), min(1, len(set(posted) - set(board)))):
            board[one] = posted[one]  # it flickered
        rig.board.raises = FetchError("it answered 500", "server", 500) if dice.random() < 0.2 else None
        rig.board.jobs = {one: {"title": f"version {version}"} if version else {} for one, version in board.items()}
        await rig.run()
        if rig.board.raises is not None:
            continue
        for one, version in board.items():
            missing.pop(one, None)
            if one not in posted:
                expected["posted"] += 1
            elif posted[one] != version:
                expected["updated"] += 1
            posted[one] = version
        for one in sorted(set(posted) - set(board)):
            missing[one] = missing.get(one, 0) + 1
            if missing[one] == 2:
                expected["closed"] += 1
                del posted[one], missing[one]
        assert await rig.open() == sorted(posted, key=lambda one: (len(one), one))
    assert Counter(str(event.kind) for event in await advanced(rig.database)) == expected
    assert (await rig.source()).total == Counts(**expected)


def test_intervals_double_while_nothing_changes_and_are_jittered_but_never_under_what_the_terms_ask() -> None:
    settings = load_settings().ingest
    usual = Intervals(settings, 900.0)
    wait, waits = None, []
    for _ in range(8):
        due = usual.after_silence(wait)
        assert 0.9 * due.wait <= due.delay <= 1.1 * due.wait
        wait = due.wait
        waits.append(wait)
    assert waits == [1800, 3600, 7200, 14_400, 21_600, 21_600, 21_600, 21_600]
    assert usual.after_change().wait == 900
    assert len({usual.after_change().delay for _ in range(50)}) > 25
    assert usual.after_failure(3600, 0, None).wait == 3600  # as it was, once it answers again
    assert 900 <= usual.after_failure(3600, 0, None).delay <= 990
    assert 3240 <= usual.after_failure(None, 2, None).delay <= 3960
    assert usual.after_failure(None, 99, None).delay <= 1.1 * 21_600
    assert usual.after_failure(None, 0, 40_000.0).delay == 40_000
    rare = Intervals(settings, 86_400.0)
    assert rare.after_silence(86_400).wait == 86_400
    assert all(rare.after_change().delay >= 86_400 for _ in range(50))
