"""A service behind each of the shipped proxies."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Running, make_settings, run_server
from tests.deploy.fronts import NAMES, Front, fronting, program


@dataclass(frozen=True, slots=True)
class Behind:
    """`service` answers at `front`."""

    service: Running
    front: Front


Started = Callable[..., AbstractAsyncContextManager[Behind]]


@pytest.fixture(params=NAMES)
def proxy(request: pytest.FixtureRequest) -> str:
    """The name of one of the proxies."""
    name: str = request.param
    program(name)  # skips before anything is started
    return name


@pytest.fixture
def started(proxy: str, dsn: str, tmp_path: Path) -> Started:
    """Start a service, with settings, and the proxy, with `changes` to its file."""

    @asynccontextmanager
    async def starting(changes: tuple[tuple[str, str], ...] = (), **settings: object) -> AsyncIterator[Behind]:
        open_to_all = {"reading": "open", "trusted_proxies": "127.0.0.1"}
        async with (
            run_server(make_settings(dsn, **{**open_to_all, **settings})) as service,
            fronting(proxy, service.url, tmp_path, *changes) as front,
        ):
            yield Behind(service, front)

    return starting


@pytest.fixture
async def behind(started: Started) -> AsyncIterator[Behind]:
    """A service behind a proxy, as shipped."""
    async with started() as running:
        yield running
