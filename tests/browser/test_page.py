"""The page in Chromium: arrivals, changes in place, history, bursts, and a database that is not there yet."""

import asyncio

import asyncpg
import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visit
from tests.browser.screen import UNREACHABLE, Database, fill, post
from tests.cluster import Cluster
from tests.conftest import Running, make_settings, run_server
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_posting_committed_by_sql_appears_without_a_reload(
    server: Running, database: Database, visit: Visit
) -> None:
    screen = await visit(server.url)
    await screen.live()
    await expect(screen.page.get_by_role("heading", name="No postings yet")).to_be_visible()
    await screen.page.evaluate("window.loaded = 'once'")
    first = await post(database, "Baker", location="Vienna", tags=["bread"], salary_min=40_000, currency="EUR")
    for words in ("Baker", "Acme", "Vienna", "bread", "from €40K", "New"):
        await expect(screen.posting(first)).to_contain_text(words)
    second = await post(database, "Miller")
    await screen.shows([second, first])
    assert await screen.page.evaluate("window.loaded") == "once"
    await expect(screen.page.locator("#notice")).to_be_empty()
    await expect(screen.status).to_contain_text("behind")


async def test_updates_closings_and_reopenings_change_a_posting_in_its_place(
    server: Running, database: Database, visit: Visit
) -> None:
    ids = await fill(database, 3)
    screen = await visit(server.url)
    await screen.live()
    posting = screen.posting(ids[1])
    await posting.evaluate("article => article.mark = 'the same element'")

    await database.execute("UPDATE job SET title = 'Renamed', salary_max = 90000 WHERE id = $1", ids[1])
    await expect(posting.get_by_role("heading")).to_have_text("Renamed")
    await expect(posting).to_contain_text("Updated")
    await database.execute("UPDATE job SET closed_at = now() WHERE id = $1", ids[1])
    await expect(posting).to_have_attribute("data-state", "closed")
    await expect(posting).to_contain_text("Closed")
    await database.execute("UPDATE job SET closed_at = NULL WHERE id = $1", ids[1])
    await expect(posting).to_have_attribute("data-state", "open")
    await database.execute("DELETE FROM job WHERE id = $1", ids[1])
    await expect(posting).to_contain_text("Deleted")

    assert await posting.evaluate("article => article.mark") == "the same element"
    assert await screen.ids() == ids


async def test_an_update_of_a_posting_beyond_the_first_page_brings_it_up(
    server: Running, database: Database, visit: Visit
) -> None:
    ids = await fill(database, 120)
    screen = await visit(server.url)
    await screen.live()
    await screen.shows(ids[:50])
    await database.execute("UPDATE job SET title = 'Found again' WHERE id = $1", ids[-1])
    await screen.shows([ids[-1], *ids[:50]])


async def test_history_loads_while_scrolling_and_shows_every_posting_once(
    server: Running, database: Database, visit: Visit
) -> None:
    ids = await fill(database, 300)
    screen = await visit(server.url)
    await screen.live()
    await screen.shows(ids[:50])
    await expect(screen.page.locator("#total")).to_have_text("About 300 postings")
    end = screen.page.locator("#end")

    async def scrolled_to_the_end() -> bool:
        await screen.page.mouse.wheel(0, 2000)
        return await end.get_attribute("data-state") == "end"

    await screen.page.mouse.move(700, 500)
    await until(scrolled_to_the_end)
    await expect(end).to_contain_text("That is everything so far.")
    await screen.shows(ids)


async def test_what_arrives_while_reading_waits_behind_a_button(
    server: Running, database: Database, visit: Visit
) -> None:
    ids = await fill(database, 60)
    screen = await visit(server.url)
    await screen.live()
    await screen.page.mouse.move(700, 500)
    await screen.page.mouse.wheel(0, 1500)
    await until(lambda: screen.page.evaluate("scrollY > 1000"))
    fresh = await fill(database, 3)
    button = screen.page.get_by_role("button", name="3 new postings")
    await expect(button).to_be_visible()
    assert not set(fresh) & set(await screen.ids())
    await button.click()
    await expect(button).to_be_hidden()
    await until(lambda: screen.page.evaluate("scrollY === 0"))
    assert (await screen.ids())[:4] == [*fresh, ids[0]]


async def test_a_burst_of_five_thousand_keeps_the_page_small_and_whole(
    server: Running, database: Database, visit: Visit
) -> None:
    first = await fill(database, 10)
    screen = await visit(server.url)
    await screen.live()
    burst = await fill(database, 5_000)
    await screen.page.keyboard.press("?")
    await expect(screen.page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    await screen.page.keyboard.press("Escape")
    await expect(screen.posting(burst[0])).to_be_in_viewport()
    assert await screen.read_down() == [*burst, *first]
    assert await screen.witnessed("most") <= 500


async def test_a_page_opened_before_the_database_says_so_and_goes_on_by_itself(visit: Visit) -> None:
    own = await asyncio.to_thread(Cluster().create)
    try:
        async with run_server(make_settings(own.dsn())) as running:
            screen = await visit(running.url)
            screen.expected.append(UNREACHABLE)
            await expect(screen.page.get_by_role("heading", name="cannot be loaded right now")).to_be_visible()
            await screen.is_in("offline")
            await asyncio.to_thread(own.start)
            await screen.live()
            await expect(screen.page.get_by_role("heading", name="No postings yet")).to_be_visible()
            writer = await asyncpg.connect(own.dsn(), server_settings={"search_path": "feed"})
            await screen.shows([await post(writer, "At last")])
            await writer.close()
    finally:
        await asyncio.to_thread(own.remove)
