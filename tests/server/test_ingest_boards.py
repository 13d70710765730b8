"""Boards of every source over HTTPS: what a feed tells of them is what happened on them, whatever goes wrong on the way."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from feed.client import FeedClient
from feed.database.connect import pool
from feed.database.jobs import JobStore
from feed.database.source_runs import SourceRuns
from feed.database.sources import SourceStore
from feed.ingest.adapters import adapter_of
from feed.ingest.fetcher import opened
from feed.ingest.runner import Report, Runner
from feed.model.source import NewSource, Source
from tests.boards.script import READS, SOURCES, Board, Churn, Fault
from tests.boards.server import Boards, serving
from tests.boards.shapes import MAPPING, NAMED_BY_URL, source_of, url_of
from tests.conftest import make_settings, run_server
from tests.postgres.events import Connection, logged
from tests.waiting import until

QUICK = {
    "ingest_allow_networks": "127.0.0.0/8", "ingest_gap": 0.001, "ingest_interval": 0.05, "ingest_interval_max": 0.1,
    "ingest_poll": 0.05, "ingest_backoff": 0.01, "ingest_retries": 0, "ingest_concurrency": 4,
}  # fmt: skip
STEPS = 4
"""Changes of each board, in the mean."""


def new(board: Board) -> NewSource:
    """The source that a board is."""
    name = url_of(board) if board.source in NAMED_BY_URL else board.name
    mapping = MAPPING if board.source == "json" else None
    host = urlsplit(board.host).hostname or ""
    return NewSource(board.source, name, host, url_of(board), mapping, switched_on=board.source == "smartrecruiters")


class Told:
    """What a subscriber was told of each source."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}

    def equals(self, boards: Boards) -> bool:
        """Return whether it is what happened on the boards."""
        return all(
            self.counts.get(name, Counter())[kind] == count
            for name, board in boards.all.items()
            for kind, count in (("posted", board.posted), ("updated", board.updated), ("closed", board.closed))
        )

    async def listen(self, url: str) -> None:
        async with FeedClient(url) as client, aclosing(client.follow(start="earliest")) as events:
            async for event in events:
                if event.is_posting:
                    self.counts.setdefault(event.data["source"], Counter())[event.kind] += 1


async def test_what_a_feed_tells_of_every_source_is_what_happened_there(
    dsn: str, database: Connection, tmp_path: Path
) -> None:
    """Twelve kinds of boards churn while each answers with a fault now and then."""
    async with serving(tls=tmp_path, hosts=len(SOURCES)) as boards:
        for source in SOURCES:
            boards.open(source, "all", 12)
        settings = make_settings(dsn, **QUICK, ingest_ca_file=boards.ca_file)
        told = Told()
        async with run_server(settings) as server, pool(settings.database, dsn) as connections:
            listening = asyncio.create_task(told.listen(server.url))
            sources = SourceStore(connections)
            for board in boards.all.values():
                await sources.add(new(board))
            await until(lambda: told.equals(boards))
            churn = Churn(boards.all, seed=7, least=9)
            steps = 0
            while steps < STEPS * len(boards.all):
                for number, board in enumerate(boards.all.values()):
                    if steps % 5 == number % 5 and not board.next_faults:
                        board.next_faults.append(("truncated", "broken", "server", "not_found", "nothing")[number % 5])
                steps += await until(churn.step)
            await until(lambda: told.equals(boards))
            await until(lambda: all(board.told >= READS for board in boards.all.values()))
            assert told.equals(boards)
            backfilled = [event for event in await logged(database) if event.reason == "backfill"]
            assert len(backfilled) == 12 * len(boards.all)

            async def counted() -> bool:
                """Return whether the sources know how many postings are open, once their runs have ended."""
                held = {name: len(board.jobs) for name, board in boards.all.items()}
                return {source.name: source.open for source in await sources.list()} == held

            await until(counted)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        rows = await database.fetch("SELECT source, count(*) FROM job WHERE closed_at IS NULL GROUP BY source")
        assert dict(map(tuple, rows)) == {name: len(board.jobs) for name, board in boards.all.items()}


class Rig:
    """Runs the source of one board at a time, with the real adapters and fetcher."""

    def __init__(self, boards: Boards, sources: SourceStore, runs: SourceRuns, runner: Runner) -> None:
        self.boards = boards
        self.sources = sources
        self._runs = runs
        self._runner = runner

    async def run(self, board: Board) -> Report:
        """Run the source of a board once; no other is due."""
        await self.sources.resume(source_of(board))
        [claim] = await self._runs.claim(1, 60)
        report = await self._runner.run(claim)
        await self.sources.pause(source_of(board))
        return report

    async def source(self, board: Board) -> Source:
        return await self.sources.read(source_of(board))


@asynccontextmanager
async def rigged(dsn: str, folder: Path | None, **more: object) -> AsyncIterator[Rig]:
    async with serving(tls=folder) as boards:
        ca = {"ingest_ca_file": boards.ca_file} if folder else {"ingest_allow_http": True}
        settings = make_settings(dsn, **{**QUICK, "ingest_interval_max": 600, **ca, **more})
        connections: asyncpg.Pool[asyncpg.Record]
        async with pool(settings.database, dsn) as connections, opened(settings.ingest) as fetcher:
            runs, jobs = SourceRuns(connections), JobStore(connections)
            runner = Runner(settings.ingest, fetcher, jobs, runs, adapter_of)
            yield Rig(boards, SourceStore(connections), runs, runner)


FAULTS: list[tuple[str, Fault, str]] = [
    ("greenhouse", "truncated", "broke its answer off"),
    ("lever", "truncated", "broke its answer off"),
    ("ashby", "empty", "the body is empty"),
    ("personio", "empty", "the body is empty"),
    ("recruitee", "nothing", "the list is empty"),
    ("lever", "nothing", "the list is empty"),
    ("smartrecruiters", "nothing", "the list is empty"),
    ("greenhouse", "not_found", "answered 404"),
    ("personio", "gone", "answered 410"),
    ("json", "server", "answered 500"),
    ("greenhouse", "private", "10.1.2.3"),
    ("ashby", "bomb", "larger than 67,108,864"),
    ("recruitee", "huge", "larger than 67,108,864"),
    ("greenhouse", "undecodable", "not UTF-8"),
    ("json", "broken", "is not JSON"),
    ("personio", "broken", "XML"),
    ("personio", "entities", "declares entities"),
]


async def test_no_fault_of_a_board_closes_anything_and_its_source_says_which_it_was(dsn: str, tmp_path: Path) -> None:
    async with rigged(dsn, tmp_path) as rig:
        for number, (source, fault, says) in enumerate(FAULTS):
            board = rig.boards.open(source, f"b{number}", 5)
            await rig.sources.add(new(board))
            assert (await rig.run(board)).changes.posted == 5
            board.close(2)
            assert (await rig.run(board)).changes.closed == 0
            board.fault = fault
            report = await rig.run(board)
            assert not report.changes, fault
            assert says in f"{report.error} {report.suspect}", fault
            shown = await rig.source(board)
            assert shown.open == 5
            assert shown.error == report.error
            board.fault = None
            report = await rig.run(board)
            assert (report.error, report.suspect, report.changes.closed) == (None, None, 1), fault


@pytest.mark.parametrize("fault", ["busy_seconds", "busy_date"])
async def test_a_board_that_is_busy_is_left_alone_as_long_as_it_asks_by_its_own_clock(dsn: str, fault: Fault) -> None:
    async with rigged(dsn, None) as rig:
        board = rig.boards.open("greenhouse", "busy", 5)
        await rig.sources.add(new(board))
        board.clock = timedelta(days=-3)
        board.fault = fault
        report = await rig.run(board)
        assert report.error is not None
        assert "429" in report.error
        shown = await rig.source(board)
        assert shown.next_at is not None
        assert timedelta(seconds=5) < shown.next_at - datetime.now(UTC) < timedelta(minutes=2)
        board.fault = None
        assert (await rig.run(board)).changes.posted == 5


async def test_robots_txt_decides_about_pages(dsn: str) -> None:
    async with rigged(dsn, None) as rig:
        page, api = (rig.boards.open(source, "all", 5) for source in ("jsonld", "remoteok"))
        rig.boards.robots = "User-agent: *\nDisallow: /"
        for board in (page, api):
            await rig.sources.add(new(board))
            await rig.sources.pause(source_of(board))
        report = await rig.run(page)
        assert report.error is not None
        assert "robots.txt" in report.error
        assert page.reads == 0
        assert (await rig.run(api)).changes.posted == 5


async def test_a_board_that_drips_is_given_up(dsn: str) -> None:
    async with rigged(dsn, None, ingest_timeout=0.5) as rig:
        board = rig.boards.open("greenhouse", "drip", 5)
        await rig.sources.add(new(board))
        board.fault = "drip"
        report = await rig.run(board)
        assert report.error is not None
        assert "did not answer in time" in report.error


async def test_what_is_declared_in_a_wrong_charset_and_what_did_not_change_are_read_well(dsn: str) -> None:
    async with rigged(dsn, None) as rig:
        board = rig.boards.open("recruitee", "umlauts", 5)
        await rig.sources.add(new(board))
        board.next_faults.append("charset")
        assert (await rig.run(board)).changes.posted == 5
        board.update(3)
        assert (await rig.run(board)).changes.updated == 1
        assert not (await rig.run(board)).changes
        assert "if-none-match" in rig.boards.asked[-1].headers
        assert board.told == 2
        assert (await rig.source(board)).company == "Grünwald & Söhne umlauts"
