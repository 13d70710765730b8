"""The sources: looked after by a person, claimed by one process at a time, and removed with their postings."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from feed.database.connect import pool
from feed.database.jobs import JobStore, batch_of
from feed.database.source_runs import SourceRuns
from feed.database.source_writing import Remembering, Superseded
from feed.database.sources import SourceStore
from feed.errors import Fault, Invalid, NotFound
from feed.model.source import BadRow, Counts, NewSource
from feed.model.source_run import Ended, Listed, Remembered, Validators
from tests.conftest import make_settings
from tests.postgres.events import Connection, advanced
from tests.postgres.test_jobs import posting

LISTED = Listed(None, False, "Acme", (2,), 0, None, 3, 1, (BadRow("x", (Fault("url", "is missing"),)),), None)


@pytest.fixture
async def connections(dsn: str) -> AsyncIterator["asyncpg.Pool[asyncpg.Record]"]:
    async with pool(make_settings(dsn).database, dsn) as opened:
        yield opened


@pytest.fixture
def sources(connections: "asyncpg.Pool[asyncpg.Record]") -> SourceStore:
    return SourceStore(connections)


@pytest.fixture
def runs(connections: "asyncpg.Pool[asyncpg.Record]") -> SourceRuns:
    return SourceRuns(connections)


def acme(board: str = "acme", host: str = "boards.example", **more: object) -> NewSource:
    return NewSource("greenhouse", board, host, **more)  # type: ignore[arg-type]


async def test_a_source_is_added_once_paused_resumed_and_keeps_its_terms(sources: SourceStore) -> None:
    terms = {"attribution": "Link to them", "min_interval": 21_600.0, "syndicate": False, "mapping": "[posting]"}
    added = await sources.add(acme(url="https://mirror.example/acme", **terms))
    assert (added.name, added.state, added.running) == ("greenhouse:acme", "new", False)
    assert (added.attribution, added.min_interval, added.syndicate, added.mapping) == tuple(terms.values())
    with pytest.raises(Invalid, match="already"):
        await sources.add(acme())
    assert (await sources.pause("greenhouse:acme")).state == "paused"
    assert (await sources.resume("greenhouse:acme")).state == "new"
    assert await sources.list() == [await sources.read("greenhouse:acme")]
    with pytest.raises(Invalid, match="nothing"):
        await sources.accept("greenhouse:acme")
    for call in (sources.read, sources.pause, sources.resume, sources.accept, sources.remove):
        with pytest.raises(NotFound, match="greenhouse:other"):
            await call("greenhouse:other")


async def test_claims_are_one_a_host_the_longest_overdue_first_and_none_of_a_paused_source(
    sources: SourceStore, runs: SourceRuns, database: Connection
) -> None:
    assert await runs.next_due() is None
    for number, host in enumerate(("a.example", "a.example", "b.example", "c.example", "d.example")):
        await sources.add(acme(f"board{number}", host))
        await database.execute(
            "UPDATE source SET next_at = now() - make_interval(secs => $1) WHERE board = $2",
            100.0 - number,
            f"board{number}",
        )
    await sources.pause("greenhouse:board3")
    both = await asyncio.gather(runs.claim(2, 60), runs.claim(9, 60))
    claims = {claim.source.board: claim for claims in both for claim in claims}
    assert sorted(claims) == ["board0", "board2", "board4"]
    assert all(claim.source.running for claim in claims.values())
    assert (await runs.next_due() or 0) <= 0  # board1 waits for its host alone
    await runs.release(claims["board0"])
    assert [claim.source.board for claim in await runs.claim(1, 60)] == ["board0"]
    await database.execute("UPDATE source SET claimed_until = now()")  # the processes have died
    assert {claim.source.board for claim in await runs.claim(9, 60)} == {"board0", "board2", "board4"}


async def test_how_a_run_ended_is_kept_and_a_second_one_is_told_of_it(
    sources: SourceStore, runs: SourceRuns, database: Connection
) -> None:
    await sources.add(acme())
    (claim,) = await runs.claim(1, 60)
    validators = Validators("https://a.example", '"1"', None, b"d" * 32, "1")
    listed = Listed(**{name: getattr(LISTED, name) for name in Listed.__slots__} | {"validators": validators})
    await runs.finish(claim, Ended(900, 890, Counts(2, 1, 0), listed=listed, attribution="them", syndicate=False))
    source = await sources.read("greenhouse:acme")
    assert (source.state, source.last_change) == ("ok", Counts(2, 1, 0))
    assert (source.faults, source.counts, source.found, source.company) == (LISTED.faults, (2,), 3, "Acme")
    assert (source.attribution, source.syndicate, source.wait) == ("them", False, 900)
    assert 0 < (await runs.next_due() or 0) <= 890
    assert await runs.claim(1, 60) == []
    await sources.resume("greenhouse:acme")
    (claim,) = await runs.claim(1, 60)
    assert claim.validators == validators
    await sources.resume("greenhouse:acme")  # while it runs: the next run stays due at once
    await runs.finish(claim, Ended(900, 890, error="it said 500"))
    source = await sources.read("greenhouse:acme")
    assert (source.state, source.error, source.failures, source.last_change) == (
        "failing",
        "it said 500",
        1,
        Counts(2, 1, 0),
    )
    assert source.succeeded_at
    assert (await runs.next_due() or 0) <= 0


async def test_acceptance_is_used_up_by_the_list_that_needed_it(sources: SourceStore, runs: SourceRuns) -> None:
    await sources.add(acme())
    (claim,) = await runs.claim(1, 60)
    await runs.finish(claim, Ended(900, 890, listed=Listed("too few", False, None, (), 0, None, 1, 0, (), None)))
    assert (await sources.read(claim.name)).state == "suspect"
    assert (await sources.accept(claim.name)).accepted
    (claim,) = await runs.claim(1, 60)
    assert claim.source.accepted
    await runs.finish(claim, Ended(900, 890, error="it said 500"))
    await sources.resume(claim.name)
    (claim,) = await runs.claim(1, 60)
    assert claim.source.accepted
    await runs.finish(claim, Ended(900, 890, listed=Listed(None, True, None, (1,), 0, None, 1, 0, (), None)))
    source = await sources.read(claim.name)
    assert (source.state, source.accepted, source.suspect_at) == ("ok", False, None)


async def test_a_removed_source_takes_its_postings_along_and_a_run_that_goes_on_writes_nothing_more(
    sources: SourceStore, runs: SourceRuns, connections: "asyncpg.Pool[asyncpg.Record]", database: Connection
) -> None:
    jobs = JobStore(connections)
    await sources.add(acme())
    (claim,) = await runs.claim(1, 60)
    remembered = [Remembered(str(number), b"d", None) for number in (1, 2, 3)]
    batch = batch_of([posting(number, source=claim.name) for number in (1, 2, 3)])
    await jobs.write_batches([batch], Remembering(claim, remembered, are_new=True, backfill=True))
    await jobs.write([posting(4)])
    assert set(await runs.known(claim)) == {"1", "2", "3"}
    assert await runs.close(claim, ["3", "other"], "expired") == 1
    assert (await sources.read(claim.name)).total == Counts(posted=3, closed=1)
    assert await sources.remove(claim.name) == 2
    with pytest.raises(Superseded):
        await jobs.write_batches([batch], Remembering(claim, remembered, are_new=True, backfill=False))
    with pytest.raises(Superseded):
        await runs.mark(claim, ["1"], 1)
    await runs.finish(claim, Ended(900, 890))
    assert await database.fetchval("SELECT count(*) FROM source_posting") == 0
    assert await database.fetchval("SELECT array_agg(external_id) FROM job WHERE closed_at IS NULL") == ["4"]
    closed = [(event.job["external_id"], event.reason) for event in await advanced(database) if event.kind == "closed"]
    assert sorted(closed) == [("1", "removed"), ("2", "removed"), ("3", "expired")]
    await sources.add(acme())  # another one, of which the run of the old one has no claim
    with pytest.raises(Superseded):
        await runs.close(claim, ["1"])
