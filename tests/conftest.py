"""Fixtures: one cluster a worker, one cloned database a test, a real server where asked for."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from feed.service import Service
from feed.serving.server import serve_until
from feed.settings.settings import Settings, load_settings
from tests.clones import Clones
from tests.cluster import Cluster

# A shell ignores Ctrl-C for what it runs in the background, and every process below would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

QUICK = {
    "sequencer_interval": 0.002,
    "sequencer_idle": 0.02,
    "leader_retry": 0.1,
    "tail_poll": 0.5,
    "reconnect_max": 0.3,
    "retry_min": 0.05,
    "retry_max": 0.1,
    "retry_busy": 0.2,
    "log_level": "warning",
}
"""Shorter waits than a service needs; nothing else differs from the defaults."""


KEPT = ("FEED_TORTURE", "FEED_FANOUT_WRITER")
"""What begins so is not taken out of the environment: all tests can run on one way to write, `FEED_FANOUT_WRITER=send`."""


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name == "DATABASE_URL" or (name.startswith("FEED_") and not name.startswith(KEPT)):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """This worker's Postgres; a test that kills or stops one makes its own."""
    made = Cluster().create().start()
    yield made
    made.remove()


@pytest.fixture(scope="session")
def clones(cluster: Cluster) -> Iterator[Clones]:
    """The databases that this worker's tests are given."""
    made = Clones(cluster)
    yield made
    made.close()


@pytest.fixture
async def dsn(clones: Clones) -> AsyncIterator[str]:
    """A migrated database of the test's own."""
    async with clones.one() as made:
        yield made


@pytest.fixture
def settings(dsn: str) -> Settings:
    """Settings on the test's database, quick and on a free port."""
    return make_settings(dsn)


def make_settings(dsn: str, **more: Any) -> Settings:
    """Settings on any database; `more` overrides."""
    return load_settings(**{**QUICK, "database_url": dsn, "port": 0, **more})


Connect = Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]


@pytest.fixture
async def connect(dsn: str) -> AsyncIterator[Connect]:
    """Open connections as a writer would, with the feed's schema on the path; closed at the end."""
    async with AsyncExitStack() as stack:

        async def opened() -> "asyncpg.Connection[asyncpg.Record]":
            connection = await asyncpg.connect(dsn, server_settings={"search_path": "feed"})
            stack.callback(connection.terminate)
            return connection

        yield opened


@pytest.fixture
async def database(connect: Connect) -> "asyncpg.Connection[asyncpg.Record]":
    """One such connection."""
    return await connect()


@dataclass(frozen=True, slots=True)
class Running:
    """A service that answers at `url`; `stop` asks it to drain, as a signal would."""

    url: str
    service: Service
    stop: asyncio.Event
    ended: "asyncio.Task[None]"


@asynccontextmanager
async def run_server(settings: Settings) -> AsyncIterator[Running]:
    """A real Hypercorn on a real socket in this event loop; drained and gone on leaving."""
    stop = asyncio.Event()
    up: asyncio.Future[tuple[str, Service]] = asyncio.get_running_loop().create_future()
    ended = asyncio.create_task(
        serve_until(stop, settings, lambda url, service: up.set_result((url, service))), name="server"
    )
    try:
        await asyncio.wait([up, ended], return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
        url, service = up.result()
        yield Running(url, service, stop, ended)
    finally:
        stop.set()
        await ended


Serve = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Running]:
    """One running service on the test's database."""
    async with run_server(settings) as running:
        yield running
