"""Databases for the tests of feed.database: an empty one, a role without rights."""

import itertools
from collections.abc import AsyncIterator

import pytest

from tests.cluster import Cluster
from tests.postgres.attaching import VACANCIES
from tests.postgres.events import Connection, opened

_numbers = itertools.count(1)


@pytest.fixture
async def blank(cluster: Cluster) -> AsyncIterator[str]:
    """An empty database of the test's own."""
    name = f"blank_{next(_numbers)}"
    async with opened(cluster.dsn()) as admin:
        await admin.execute(f"CREATE DATABASE {name}")
        try:
            yield cluster.dsn(name)
        finally:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def role(blank: str) -> AsyncIterator[str]:
    """A role that may log in and nothing else; what it comes to own in `blank` goes with it."""
    name = f"role_{next(_numbers)}"
    async with opened(blank) as admin:
        await admin.execute(f"CREATE ROLE {name} LOGIN")
        try:
            yield name
        finally:
            await admin.execute(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


@pytest.fixture
async def vacancies(database: Connection) -> Connection:
    """A connection to a database with a table of somebody else's."""
    await database.execute(VACANCIES)
    return database
