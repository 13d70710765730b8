"""Fixtures: one Chromium for all, a context of its own a page, and a service in the loop that Chromium is driven from."""

import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.browser.screen import WAIT, Database, Screen
from tests.clones import Clones
from tests.conftest import Running, make_settings, run_server

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("the browser tests need Chromium: apt-get install chromium fonts-dejavu-core", pytrace=False)
    expect.set_options(timeout=WAIT)
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        await started.close()


@pytest_asyncio.fixture(loop_scope="session")
async def dsn(clones: Clones) -> AsyncIterator[str]:
    """A migrated database of the test's own."""
    async with clones.one() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def database(dsn: str) -> AsyncIterator[Database]:
    """A connection as a writer would have it, with the feed's schema on the path."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "feed"})
    yield connection
    connection.terminate()


@pytest_asyncio.fixture(loop_scope="session")
async def server(dsn: str) -> AsyncIterator[Running]:
    """One running service on the test's database."""
    async with run_server(make_settings(dsn)) as running:
        yield running


@pytest.fixture
def port() -> Iterator[int]:
    """A port that stays the same while services on it come and go."""
    with socket.socket() as reserved:
        # Bound and not listening, it keeps the port from others, but not from a service, which reuses addresses.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


Visit = Callable[..., Awaitable[Screen]]


@pytest_asyncio.fixture(loop_scope="session")
async def visit(browser: Browser) -> AsyncIterator[Visit]:
    """Open an address in a context of its own; with a `clock` that can be put forward (options: `Browser.new_context`).

    Ask for it after the service, so that the pages are closed first. The test fails if a page has anything to object to.
    """
    screens: list[Screen] = []
    async with AsyncExitStack() as stack:

        async def opened(url: str, *, clock: bool = False, **options: Any) -> Screen:
            context = await browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
            stack.push_async_callback(context.close)
            screen = await Screen.of(context)
            screens.append(screen)
            if clock:
                await screen.page.clock.install()
            await screen.page.goto(url)
            return screen

        yield opened
        objections = [objection for screen in screens for objection in await screen.objections()]
    assert not objections
