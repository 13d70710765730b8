"""The page where reading needs a key: it asks for one, keeps none, and says so when access has ended."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import expect

from feed.access.grant import Scope
from feed.access.key import Key, new_key
from feed.database.access import AccessStore
from feed.database.connect import pool
from tests.browser.conftest import Visit
from tests.browser.screen import Database, fill, post
from tests.conftest import make_settings, run_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

DENIED = r"Failed to load resource: the server responded with a status of 401"


@asynccontextmanager
async def made_key(dsn: str, wanted: str = "") -> AsyncIterator[tuple[AccessStore, Key]]:
    """A key for reading, and the store that it is in."""
    async with pool(make_settings(dsn).database, dsn) as connections:
        store, key = AccessStore(connections), new_key()
        await store.add_key(key, Scope.READ, wanted=wanted)
        yield store, key


async def test_a_reader_signs_in_with_a_key_follows_the_feed_and_signs_out(
    dsn: str, database: Database, visit: Visit
) -> None:
    ids = await fill(database, 2)
    settings = make_settings(dsn, reading="keys", writing="keys")
    async with made_key(dsn) as (_, key), run_server(settings) as server:
        screen = await visit(server.url)
        screen.expected.append(DENIED)
        field = screen.page.get_by_label("Key", exact=True)
        await expect(field).to_be_focused()
        await expect(screen.status).to_contain_text("Signed out")

        await field.fill("feedkey_nonsense")
        await field.press("Enter")
        await expect(screen.page.get_by_role("alert")).to_contain_text("this is not a valid key")

        await field.fill(key.text)
        await field.press("Enter")
        await screen.live()
        await screen.shows(ids)
        new = await post(database, "Baker")
        await expect(screen.posting(new)).to_contain_text("Baker")
        assert key.text not in await screen.page.evaluate("JSON.stringify({...localStorage}) + document.cookie")

        await screen.page.reload()
        await screen.live()
        await screen.page.get_by_role("button", name="Sign out").click()
        await expect(field).to_be_visible()
        await expect(screen.posting(new)).to_have_count(0)


async def test_a_key_that_is_revoked_ends_the_stream_and_the_page_asks_again(
    dsn: str, database: Database, visit: Visit
) -> None:
    settings = make_settings(dsn, reading="keys", writing="keys", access_poll=0.1)
    async with made_key(dsn, "company=acme") as (store, key), run_server(settings) as server:
        screen = await visit(server.url)
        screen.expected.append(DENIED)
        await screen.page.get_by_label("Key", exact=True).fill(key.text)
        await screen.page.get_by_role("button", name="Sign in").click()
        await screen.live()
        await post(database, "Hidden", company="Globex")
        seen = await post(database, "Seen", company="Acme")
        await screen.shows([seen])

        await store.revoke_key(key.id)
        await expect(screen.page.get_by_label("Key", exact=True)).to_be_visible()
        await expect(screen.posting(seen)).to_have_count(0)
