"""Boards in memory and the adapter that reads them, so that a test says what a board holds and what goes wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from feed.database.connect import pool
from feed.database.jobs import JobStore
from feed.database.source_runs import SourceRuns
from feed.database.sources import SourceStore
from feed.ingest.adapter import BadPosting, Fetch, Found, Terms
from feed.ingest.fetcher import opened
from feed.ingest.runner import Report, Runner
from feed.model.posting import PostingIn
from feed.model.source import NewSource, Source
from feed.model.source_run import Claim
from feed.settings.settings import Settings
from tests.ingest.fault_server import ALLOWED
from tests.postgres.events import Connection


def posting(source: str, external_id: str, **fields: Any) -> PostingIn:
    row = {"title": f"job {external_id}", "company": "Acme", "url": f"https://a.example/{external_id}"}
    return PostingIn.model_validate({"source": source, "external_id": external_id, **row, **fields})


@dataclass
class Board:
    """What the next read of a board finds."""

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    complete: bool = True
    bad: tuple[BadPosting, ...] = ()
    company: str | None = None
    raises: Exception | None = None
    address: str | None = None
    """A URL that is fetched before."""
    gate: asyncio.Event | None = None
    """A read waits for it."""
    reads: int = 0

    def hold(self, *external_ids: object, **fields: Any) -> None:
        """Hold exactly these postings."""
        self.jobs = {str(one): dict(fields) for one in external_ids}


@dataclass
class FakeAdapter:
    """Reads the boards of a test."""

    name: str = "fake"
    rolling: bool = False
    terms: Terms = field(default_factory=lambda: Terms(min_interval=0.0))
    gap: float = 0.0
    off: str | None = None
    boards: dict[str, Board] = field(default_factory=dict)
    reading: int = 0
    most_reading: int = 0

    def address(self, board: str) -> str:
        return f"https://{board}.example/"

    async def read(self, board: str, url: str, fetch: Fetch) -> Found:
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        try:
            one = self.boards[board]
            one.reads += 1
            if one.gate is not None:
                await one.gate.wait()
            await asyncio.sleep(0)
            if one.raises is not None:
                raise one.raises
            if one.address is not None:
                await fetch(one.address)
            source = f"{self.name}:{board}"
            found = tuple(posting(source, external_id, **fields) for external_id, fields in one.jobs.items())
            return Found(found, one.complete, one.bad, one.company)
        finally:
            self.reading -= 1


@dataclass
class Rig:
    """Everything that runs need, on a database of the test's own; `board` is that of the source `fake:acme`."""

    adapter: FakeAdapter
    jobs: JobStore
    sources: SourceStore
    runs: SourceRuns
    runner: Runner
    database: Connection
    name: str = "fake:acme"

    @property
    def board(self) -> Board:
        return self.adapter.boards[self.name.partition(":")[2]]

    async def add(self, board: str, host: str | None = None, **more: Any) -> Board:
        """Add a source with an empty board."""
        await self.sources.add(NewSource(self.adapter.name, board, host or f"{board}.example", **more))
        return self.adapter.boards.setdefault(board, Board())

    async def claimed(self) -> Claim:
        """Make the source due and claim it."""
        await self.sources.resume(self.name)
        (claim,) = await self.runs.claim(1, 60)
        return claim

    async def run(self) -> Report:
        """Run the source once."""
        return await self.runner.run(await self.claimed())

    async def source(self) -> Source:
        return await self.sources.read(self.name)

    async def open(self) -> list[str]:
        """The external ids of the postings that are open."""
        rows = await self.database.fetch(
            "SELECT external_id FROM job WHERE source = $1 AND closed_at IS NULL ORDER BY length(external_id), external_id",
            self.name,
        )
        return [row["external_id"] for row in rows]


@asynccontextmanager
async def rigged(settings: Settings, database: Connection, adapter: FakeAdapter) -> AsyncIterator[Rig]:
    """Yield a rig with the source `fake:acme`."""
    connections: asyncpg.Pool[asyncpg.Record]
    dsn = settings.database.url or ""
    async with pool(settings.database, dsn) as connections, opened(settings.ingest) as fetcher:
        jobs, runs = JobStore(connections), SourceRuns(connections)
        runner = Runner(settings.ingest, fetcher, jobs, runs, lambda name, mapping: adapter)
        rig = Rig(adapter, jobs, SourceStore(connections), runs, runner, database)
        await rig.add("acme")
        yield rig


QUICK = {
    "ingest_allow_http": True, "ingest_allow_networks": f"{ALLOWED}/32", "ingest_gap": 0.001, "ingest_backoff": 0.001,
    "ingest_retries": 0, "ingest_poll": 0.05,
}  # fmt: skip
"""Settings by which local servers are fetched, without waits."""
