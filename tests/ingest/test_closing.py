"""Which lists close postings, rule by rule, on a real database."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from feed.errors import Fault
from feed.ingest.adapter import BadPosting, FetchError, Malformed, NotModified
from tests.conftest import make_settings
from tests.ingest.fake_board import QUICK, FakeAdapter, Rig, rigged
from tests.ingest.fault_server import answer, fault_server
from tests.postgres.events import Connection, advanced

ALL = [str(number) for number in range(10)]


@pytest.fixture
async def rig(dsn: str, database: Connection) -> AsyncIterator[Rig]:
    async with rigged(make_settings(dsn, **QUICK), database, FakeAdapter()) as made:
        made.board.hold(*ALL)
        await made.run()
        yield made


@pytest.fixture
async def rolling(dsn: str, database: Connection) -> AsyncIterator[Rig]:
    adapter = FakeAdapter(rolling=True)
    async with rigged(make_settings(dsn, **QUICK, ingest_interval_max=0.001), database, adapter) as made:
        made.board.hold(*ALL, valid_through=None)
        made.board.complete = False
        await made.run()
        yield made


async def test_a_posting_closes_when_two_complete_lists_in_a_row_are_without_it(rig: Rig) -> None:
    rig.board.hold(*ALL[1:])
    assert (await rig.run()).changes.closed == 0
    rig.board.hold(*ALL[2:], "0")  # one is back, another one is missing
    assert (await rig.run()).changes.closed == 0
    rig.board.hold(*ALL[2:])
    report = await rig.run()
    assert (report.changes.closed, await rig.open()) == (1, ["0", *ALL[2:]])
    assert (await rig.run()).changes.closed == 1
    await advanced(rig.database)
    rig.board.hold(*ALL)
    assert (await rig.run()).changes.posted == 2
    reopened = await advanced(rig.database)
    assert [(event.kind, event.reason) for event in reopened] == [("posted", None)] * 2
    assert await rig.open() == ALL


NOTHING = {
    "304": {"raises": NotModified()},
    "404": {"raises": FetchError("it answered 404", "not_found", 404)},
    "truncated": {"raises": FetchError("it broke off", "truncated", 200)},
    "malformed": {"raises": Malformed("it is no JSON")},
    "a fault of ours": {"raises": KeyError("jobs")},
    "incomplete": {"complete": False},
    "a posting without a name": {"bad": (BadPosting(None, [Fault("title", "is missing")]),)},
}


@pytest.mark.parametrize("what", NOTHING.values(), ids=NOTHING)
async def test_what_is_no_complete_list_closes_nothing_and_counts_for_nothing(
    rig: Rig, what: dict[str, object]
) -> None:
    rig.board.hold(*ALL[1:])
    await rig.run()
    for name, value in what.items():
        setattr(rig.board, name, value)
    for _ in range(3):
        assert (await rig.run()).changes.closed == 0
    source = await rig.source()
    failed = isinstance(rig.board.raises, Exception) and not isinstance(rig.board.raises, NotModified)
    assert (source.state, source.failures) == (("failing", 3) if failed else ("ok", 0))
    assert await rig.open() == ALL
    for name in what:
        setattr(rig.board, name, {"raises": None, "complete": True, "bad": ()}[name])
    assert (await rig.run()).changes.closed == 1  # the second complete one
    assert (await rig.source()).state == "ok"


async def test_a_bad_posting_that_tells_its_name_is_on_the_board(rig: Rig) -> None:
    rig.board.hold(*ALL[1:])
    rig.board.bad = (BadPosting("0", [Fault("url", "must be a URL")]),)
    for _ in range(3):
        await rig.run()
    source = await rig.source()
    assert (await rig.open(), source.found, source.bad) == (ALL, 10, 1)
    assert source.faults[0].faults == (Fault("url", "must be a URL"),)


async def test_a_list_far_shorter_than_usual_is_suspect_and_closes_nothing_until_it_is_accepted(rig: Rig) -> None:
    for _ in range(3):
        await rig.run()
    rig.board.hold(*ALL[:6], title="new")
    for _ in range(4):
        report = await rig.run()
        assert report.suspect
        assert "6" in report.suspect
        assert "10" in report.suspect
    assert await rig.open() == ALL
    assert (await rig.source()).total.updated == 6  # what it does tell is true
    await rig.sources.accept(rig.name)
    report = await rig.run()
    assert (report.suspect, report.changes.closed, await rig.open()) == (None, 4, ALL[:6])
    source = await rig.source()
    assert (source.state, source.accepted, source.counts) == ("ok", False, (6,))
    rig.board.hold(*ALL[:4])  # an acceptance holds once
    assert (await rig.run()).suspect


async def test_what_a_suspect_list_lacked_counts_for_nothing_once_lists_look_right_again(rig: Rig) -> None:
    rig.board.hold(*ALL[:6])
    await rig.run()
    rig.board.hold(*ALL[:7])
    assert (await rig.run()).suspect is None
    assert await rig.open() == ALL
    rig.board.hold(*ALL)
    await rig.run()
    assert (await rig.source()).state == "ok"
    assert await rig.database.fetchval("SELECT count(*) FROM source_posting WHERE missed <> 0") == 0


async def test_an_empty_list_is_believed_after_three_times_over_a_day(rig: Rig) -> None:
    rig.board.hold()
    for _ in range(4):
        assert "empty" in ((await rig.run()).suspect or "")
    await rig.database.execute("UPDATE source SET empty_at = empty_at - interval '1 day'")
    rig.board.hold(*ALL)
    assert (await rig.run()).suspect is None  # it was a fault: the count begins anew
    rig.board.hold()
    await rig.run()
    await rig.database.execute("UPDATE source SET empty_at = empty_at - interval '1 day'")
    assert (await rig.run()).suspect
    assert await rig.open() == ALL
    report = await rig.run()
    assert (report.suspect, report.changes.closed, await rig.open()) == (None, 10, [])
    assert (await rig.run()).suspect is None  # empty as before
    rig.board.hold("1")
    assert (await rig.run()).changes.posted == 1


async def test_another_company_under_the_same_name_is_suspect_and_nothing_of_it_is_written(rig: Rig) -> None:
    rig.board.company = "Acme"
    await rig.run()
    rig.board.company = " ACME"
    assert (await rig.run()).suspect is None
    rig.board.company = "Zenith"
    rig.board.hold("0", "z", title="theirs")
    report = await rig.run()
    assert report.suspect
    assert "Zenith" in report.suspect
    assert (await rig.open(), report.changes.posted, report.changes.updated) == (ALL, 0, 0)
    await rig.sources.accept(rig.name)
    report = await rig.run()
    assert (report.changes.posted, report.changes.updated, report.changes.closed) == (1, 1, 9)
    assert (await rig.source()).company == "Zenith"


async def test_an_empty_board_that_never_held_anything_is_not_suspect(rig: Rig) -> None:
    await rig.add("empty")
    rig = replace(rig, name="fake:empty")
    for _ in range(3):
        assert (await rig.run()).suspect is None
    assert (await rig.source()).state == "ok"


async def test_a_rolling_source_closes_nothing_for_its_absence_but_by_age(rolling: Rig) -> None:
    rolling.board.hold(*ALL[5:])
    for _ in range(3):
        await rolling.run()
    assert await rolling.open() == ALL
    await rolling.database.execute(
        "UPDATE source_posting SET missed_at = missed_at - interval '31 days' WHERE external_id IN ('0', '1', '7')"
    )
    rolling.board.raises = NotModified()  # it is looked after also when the list is as it was
    assert (await rolling.run()).changes.closed == 2
    assert await rolling.open() == ALL[2:]
    assert [event.reason for event in await advanced(rolling.database) if event.kind == "closed"] == ["expired"] * 2


async def test_a_rolling_source_closes_what_is_gone_from_its_own_page_twice(rolling: Rig) -> None:
    async with fault_server() as server:
        server.answers = {"/0": answer(b"", status=410), "/1": answer(b"<p>"), "/2": answer(b"", status=500)}
        rolling.board.jobs = {one: {"url": server.url(f"/{one}")} for one in ALL[:3]}
        await rolling.run()
        rolling.board.hold(*ALL[3:])
        await rolling.run()
        assert await rolling.open() == ALL
        server.answers["/0"] = answer(b"", status=500)  # which neither counts nor starts anew
        await rolling.run()
        server.answers["/0"] = answer(b"", status=404)
        await rolling.run()
        assert await rolling.open() == ALL[1:]
        before = len(server.asked)
        rolling.board.hold(*ALL)
        await rolling.run()
        assert len(server.asked) == before  # nothing is missing any more
        assert await rolling.open() == ALL
