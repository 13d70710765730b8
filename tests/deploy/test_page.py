"""The page in Chromium, through Caddy as shipped: HTTP/2 on TLS, one stream, postings as they come."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.browser.conftest import Visit, browser, database, dsn, visit
from tests.browser.screen import Database, post
from tests.deploy.fronts import Front, fronting, program
from tests.processes import serving

__all__ = ["browser", "database", "dsn", "visit"]  # fixtures

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def front(dsn: str, tmp_path: Path) -> AsyncIterator[Front]:
    """Caddy, by its address too: the browser cannot be told where its name leads."""
    program("caddy")
    by_address = ("{$SITE:feed.example} {", "feed.example, 127.0.0.1 {")
    async with (
        serving(dsn, reading="open", trusted_proxies="127.0.0.1") as service,
        fronting("caddy", service.url, tmp_path, by_address) as running,
    ):
        yield running


async def test_the_page_is_live_over_http2(front: Front, database: Database, visit: Visit) -> None:
    screen = await visit(f"https://127.0.0.1:{front.port}/", ignore_https_errors=True)
    await screen.live()
    protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol"
    assert await screen.page.evaluate(protocol) == "h2"
    await screen.shows([await post(database, "Baker")])
