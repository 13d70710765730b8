"""Many sources at once: bounded, fair, and fetched by one process among all."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from feed.database.source_runs import SourceRuns
from feed.errors import DatabaseUnavailable
from feed.ingest.adapter import FetchError
from feed.ingest.runner import Report
from feed.ingest.schedule import Schedule
from feed.model.source import NewSource
from feed.model.source_run import Claim
from tests.conftest import make_settings
from tests.ingest.fake_board import QUICK, FakeAdapter, Rig, rigged
from tests.ingest.fault_server import ALLOWED, FaultServer, answer, fault_server
from tests.postgres.events import Connection
from tests.processes import ROOT, environment_of, serving
from tests.waiting import until

AT_ONCE = 8


@pytest.fixture
async def rig(dsn: str, database: Connection) -> AsyncIterator[Rig]:
    settings = make_settings(dsn, **QUICK, ingest_concurrency=AT_ONCE)
    async with rigged(settings, database, FakeAdapter()) as made:
        await made.sources.remove("fake:acme")
        yield made


def scheduled(rig: Rig, dsn: str, **more: Any) -> Schedule:
    settings = make_settings(dsn, **{**QUICK, "ingest_concurrency": AT_ONCE, **more}).ingest
    return Schedule(settings, rig.runs, rig.runner.run)


async def test_two_hundred_sources_run_a_few_at_a_time_one_a_host_and_none_is_starved(rig: Rig, dsn: str) -> None:
    """A hundred boards share one host and some hang: the others do not wait for them."""
    hung = asyncio.Event()
    for number in range(200):
        board = await rig.add(f"b{number}", "shared.example" if number < 100 else f"h{number}.example")
        board.hold(*range(20))
        if 100 <= number < 100 + AT_ONCE - 3:
            board.gate = hung
        if number % 50 == 49:
            board.raises = FetchError("it answered 500", "server", 500)
    reports: list[Report] = []
    run = asyncio.create_task(scheduled(rig, dsn).once(reports.append))
    healthy = 200 - (AT_ONCE - 3)
    await until(lambda: len(reports) == healthy)
    assert rig.adapter.reading == AT_ONCE - 3  # those that hang, and nobody else
    hung.set()
    await run
    assert Counter(report.source for report in reports) == Counter({f"fake:b{number}": 1 for number in range(200)})
    assert sum(report.error is not None for report in reports) == 4
    assert rig.adapter.most_reading <= AT_ONCE
    assert await rig.database.fetchval("SELECT count(*) FROM job") == 196 * 20
    assert await rig.database.fetchval("SELECT count(*) FROM source WHERE claim IS NOT NULL") == 0
    shared = [report.source for report in reports if int(report.source[6:]) < 100]
    assert shared == [f"fake:b{number}" for number in range(100)]  # in the order in which they were due


async def test_sources_that_are_due_again_at_once_do_not_push_others_back(rig: Rig, dsn: str) -> None:
    for number in range(20):
        (await rig.add(f"b{number}")).hold(1)
    schedule = scheduled(rig, dsn, ingest_concurrency=1)
    leading = asyncio.Event()
    leading.set()
    follow = asyncio.create_task(schedule.follow(leading))

    async def again() -> bool:
        """Make whatever has run due at once."""
        await rig.database.execute(
            "UPDATE source SET next_at = clock_timestamp() WHERE claim IS NULL AND next_at > now()"
        )
        return min(board.reads for board in rig.adapter.boards.values() if board.jobs) >= 3

    await until(again)
    reads = [board.reads for board in rig.adapter.boards.values() if board.jobs]
    assert max(reads) - min(reads) <= 1
    leading.clear()
    await follow


async def test_when_leadership_ends_runs_are_cut_off_and_another_process_takes_them(rig: Rig, dsn: str) -> None:
    gate = asyncio.Event()
    (await rig.add("b1")).gate = gate
    leading = asyncio.Event()
    leading.set()
    follow = asyncio.create_task(scheduled(rig, dsn).follow(leading))
    await until(lambda: rig.adapter.reading == 1)
    assert await rig.runs.claim(9, 60) == []
    leading.clear()
    await follow
    assert rig.adapter.reading == 0
    assert len(await rig.runs.claim(9, 60)) == 1


async def test_a_claim_that_arrives_when_nobody_wants_it_any_more_is_given_back(
    rig: Rig, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.add("b1")
    claim, gate = rig.runs.claim, asyncio.Event()

    async def slow(*given: Any) -> list[Claim]:
        claims = await claim(*given)
        await gate.wait()
        return claims

    monkeypatch.setattr(SourceRuns, "claim", lambda _, *given: slow(*given))
    run = asyncio.create_task(scheduled(rig, dsn).once(lambda _: None))
    claimed = "SELECT count(*) FROM source WHERE claim IS NOT NULL"

    async def taken() -> bool:
        return bool(await rig.database.fetchval(claimed))

    await until(taken)
    run.cancel()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert await rig.database.fetchval(claimed) == 0


async def test_a_claim_is_renewed_while_its_run_goes_on_and_runs_out_with_its_process(
    rig: Rig, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feed.ingest.schedule._LEASE", 0.5)
    board = await rig.add("b1")
    board.gate = asyncio.Event()
    run = asyncio.create_task(scheduled(rig, dsn).once(lambda _: None))
    await until(lambda: board.reads)
    first = await rig.database.fetchval("SELECT claimed_until FROM source")

    async def renewed() -> bool:
        return bool(
            await rig.database.fetchval(
                "SELECT claimed_until > $1::timestamptz + interval '1 second' FROM source", first
            )
        )

    await until(renewed)

    async def taken() -> list[Claim]:
        await rig.database.execute(
            "UPDATE source SET claimed_until = now()"
        )  # as of a process that was stopped for long
        return await rig.runs.claim(1, 60)

    (other,) = await until(taken)
    board.hold(1)
    board.gate.set()
    await run
    assert await rig.database.fetchval("SELECT count(*) FROM job") == 0  # the one that was taken over writes nothing
    assert (await rig.runner.run(other)).changes.posted == 1


async def test_what_a_run_raises_ends_the_others_and_reaches_whoever_supervises(rig: Rig, dsn: str) -> None:
    for name in ("b1", "b2"):
        await rig.add(name)
    cut: list[str] = []

    async def run(claim: Claim) -> Report:
        if claim.name == "fake:b1":
            raise DatabaseUnavailable("gone")
        try:
            await asyncio.Event().wait()
        finally:
            cut.append(claim.name)
        raise AssertionError

    leading = asyncio.Event()
    leading.set()
    settings = make_settings(dsn, **QUICK).ingest
    with pytest.raises(DatabaseUnavailable):
        await Schedule(settings, rig.runs, run).follow(leading)
    assert cut == ["fake:b2"]


def listed(*ids: int, etag: str = "") -> Any:
    jobs = [
        {"id": one, "title": f"job {one}", "company_name": "Acme", "absolute_url": f"https://a.example/{one}",
         "location": {"name": "Berlin"}, "first_published": "2026-11-01T00:00:00Z", "content": "text"}
        for one in ids
    ]  # fmt: skip
    return answer(orjson.dumps({"jobs": jobs, "meta": {"total": len(jobs)}}), etag=etag)


async def add_board(rig: Rig, server: FaultServer, name: str) -> None:
    await rig.sources.add(NewSource("greenhouse", name, ALLOWED, url=server.url(f"/{name}")))


SERVED = {**QUICK, "ingest_interval": 0.3, "ingest_interval_max": 0.3, "log_level": "info"}


async def test_of_two_services_one_fetches_and_when_it_dies_the_other_one(rig: Rig, dsn: str) -> None:
    async with fault_server() as server, serving(dsn, **SERVED) as one, serving(dsn, **SERVED) as other:
        server.answers = {"/a": listed(1, 2), "/b": listed(3)}
        for name in ("a", "b"):
            await add_board(rig, server, name)

        async def changed(external_id: str) -> bool:
            return bool(await rig.database.fetchval("SELECT count(*) FROM job WHERE external_id = $1", external_id))

        await until(lambda: changed("1"))
        await until(lambda: changed("3"))
        await until(lambda: server.count("/a") > 4)
        assert server.most_open == 1  # both have one host
        leaders = [service for service in (one, other) if service.logged("a source changed")]
        assert len(leaders) == 1
        leaders[0].signal(signal.SIGTERM)
        assert await leaders[0].ended() == 0
        server.answers["/a"] = listed(1, 2, 4)
        await until(lambda: changed("4"))
        survivor = other if leaders[0] is one else one
        await until(lambda: survivor.logged("a source changed"))
        assert not any("Traceback" in service.said.decode() for service in (one, other))
        survivor.signal(signal.SIGTERM)
        assert await survivor.ended() == 0
    assert await rig.database.fetchval("SELECT count(*) FROM source WHERE claim IS NOT NULL") == 0


async def feed_ingest(dsn: str, *flags: str, **settings: object) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "feed", "ingest", *flags,
        cwd=ROOT, env=environment_of(dsn, {**QUICK, **settings}), stdout=PIPE, stderr=PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            printed, said = await process.communicate()
        return process.returncode, printed.decode(), said.decode()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def test_feed_ingest_fetches_what_is_due_and_says_what_failed(rig: Rig, dsn: str) -> None:
    code, printed, said = await feed_ingest(dsn, "--once")
    assert (code, printed) == (0, "")
    assert "feed source add" in said
    async with fault_server() as server:
        server.answers = {"/a": listed(1, 2), "/b": listed(3)}
        for name in ("a", "b", "c"):
            await add_board(rig, server, name)
        code, printed, said = await feed_ingest(dsn, "--once")
        assert (code, printed) == (1, "3 sources fetched: 3 posted, 0 updated, 0 closed; 1 failed, 0 suspect\n")
        assert "greenhouse:c failed" in said
        assert "404" in said
        code, printed, said = await feed_ingest(dsn, "--once")
        assert (code, printed) == (0, "")
        assert "no source is due" in said
        await rig.sources.pause("greenhouse:c")
        await rig.sources.resume("greenhouse:a")
        code, printed, said = await feed_ingest(dsn, "--once")
        assert (code, said) == (0, "")
        assert printed.startswith("1 source fetched: 0 posted")
    code, printed, said = await feed_ingest(dsn)
    assert code == 2
    assert "--once" in said
