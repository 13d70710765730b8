"""The API reference in Chromium: it is complete without any other site, and its policy holds back nothing that it needs."""

import httpx
import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visit
from tests.conftest import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_reference_shows_the_api_without_another_site(server: Running, visit: Visit) -> None:
    screen = await visit(server.url)
    asked: list[str] = []
    screen.page.on("request", lambda request: asked.append(request.url))
    await screen.page.goto(f"{server.url}/docs")
    for words in ("/v1/jobs/stream", "/v1/tickets", "/readyz"):
        await expect(screen.page.get_by_text(words, exact=True)).to_be_visible()
    operation = screen.page.locator(".opblock", has=screen.page.get_by_text("/healthz", exact=True))
    await operation.get_by_role("button").first.click()
    await operation.get_by_role("button", name="Try it out").click()
    await operation.get_by_role("button", name="Execute").click()
    await expect(operation.locator(".live-responses-table")).to_contain_text('"alive": true')
    foreign = [url for url in asked if not url.startswith((f"{server.url}/", "data:"))]
    assert asked
    assert not foreign


async def test_every_page_and_its_files_have_a_policy_without_foreign_or_inline_scripts(server: Running) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        for path in ("/", "/static/app.js", "/docs", "/docs/files/start.js", "/docs/files/swagger-ui-bundle.js"):
            answer = (await client.get(path)).raise_for_status()
            policy = answer.headers["content-security-policy"]
            assert "script-src 'self';" in policy
            assert "unsafe-eval" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert (await client.get("/redoc")).status_code == 404
