"""Databases of the tests: clones of one that is migrated, made ahead by a thread while the test before runs."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager

import asyncpg

from feed.database.migrate import migrate
from feed.settings.settings import load_settings
from tests.cluster import Cluster

_TEMPLATE = "feed_template"


class Clones:
    """The migrated databases of a cluster, each for one test. `close` it before the cluster ends."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._numbers = itertools.count(1)
        self._thread = ThreadPoolExecutor(1, "clones")
        self._thread.submit(self._migrate).result()
        self._next = self._thread.submit(self._make)
        self._dropped: list[Future[None]] = []

    @asynccontextmanager
    async def one(self) -> AsyncIterator[str]:
        """Yield the DSN of a database of one's own, which is dropped after leaving."""
        taken, self._next = self._next, self._thread.submit(self._make)
        name = await asyncio.wrap_future(taken)
        try:
            yield self._cluster.dsn(name)
        finally:
            self._dropped.append(self._thread.submit(self._drop, name))

    def close(self) -> None:
        """Wait for what is under way; raises what went wrong with any of the databases that were left."""
        self._thread.shutdown()
        for one in self._dropped:
            one.result()

    def _migrate(self) -> None:
        async def migrated() -> None:
            await self._execute(f"CREATE DATABASE {_TEMPLATE}")
            await migrate(load_settings(), self._cluster.dsn(_TEMPLATE))

        asyncio.run(migrated())

    def _make(self) -> str:
        name = f"test_{next(self._numbers)}"

        async def made() -> None:
            await self._execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
            # A clone notices that it is one and begins an epoch; a test that wants to see that makes its own.
            clone = await asyncpg.connect(self._cluster.dsn(name), server_settings={"search_path": "feed"})
            await clone.fetchval("SELECT epoch FROM advance(1)")
            await clone.close()

        asyncio.run(made())
        return name

    def _drop(self, name: str) -> None:
        asyncio.run(self._execute(f"DROP DATABASE {name} WITH (FORCE)"))

    async def _execute(self, statement: str) -> None:
        admin = await asyncpg.connect(self._cluster.dsn())
        try:
            await admin.execute(statement)
        finally:
            await admin.close()
