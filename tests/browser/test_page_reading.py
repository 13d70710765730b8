"""The page for every reader: the keyboard, a screen reader's view, the dark, and a small phone."""

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visit
from tests.browser.screen import Database, fill, post
from tests.conftest import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_everything_can_be_done_from_the_keyboard(server: Running, database: Database, visit: Visit) -> None:
    ids = await fill(database, 60)
    await database.execute("UPDATE job SET description = 'Bread and rolls.' WHERE id = $1", ids[1])
    screen = await visit(server.url)
    keys = screen.page.keyboard
    await screen.live()

    await keys.press("/")
    await expect(screen.page.get_by_role("searchbox")).to_be_focused()
    await keys.type("job")
    await keys.press("Escape")
    await expect(screen.page.get_by_role("searchbox")).not_to_be_focused()
    await expect(screen.page).to_have_url(f"{server.url}/?q=job")
    await screen.live()

    await keys.press("j")
    assert await screen.focused() == ids[0]
    await keys.press("j")
    await keys.press("j")
    assert await screen.focused() == ids[2]
    await keys.press("k")
    assert await screen.focused() == ids[1]

    details = screen.posting(ids[1]).locator(".details")
    await keys.press("o")
    await expect(details).to_contain_text("Bread and rolls.")
    await expect(screen.posting(ids[1]).get_by_role("button").first).to_have_attribute("aria-expanded", "true")
    await keys.press("o")
    await expect(details).to_be_hidden()
    await keys.press("Enter")
    await expect(details).to_be_visible()
    await keys.press("Enter")

    held = await post(database, "Job while reading")
    await expect(screen.page.get_by_role("button", name="1 new posting")).to_be_visible()
    await expect(screen.posting(held)).to_have_count(0)
    await keys.press("n")
    await expect(screen.posting(held)).to_be_in_viewport()

    pause = screen.page.get_by_role("button", name="Pause new postings")
    await keys.press("p")
    await expect(pause).to_have_attribute("aria-pressed", "true")
    paused = await post(database, "Job while paused")
    await expect(screen.page.get_by_role("button", name="1 new posting")).to_be_visible()
    await expect(screen.posting(paused)).to_have_count(0)
    await keys.press("p")
    await expect(pause).to_have_attribute("aria-pressed", "false")
    await expect(screen.posting(paused)).to_be_visible()

    shortcuts = screen.page.get_by_role("dialog", name="Keyboard shortcuts")
    await keys.press("?")
    await expect(shortcuts).to_be_visible()
    await keys.press("j")
    assert await screen.focused() is None
    await keys.press("Escape")
    await expect(shortcuts).to_be_hidden()


async def test_stepping_down_goes_on_into_older_pages(server: Running, database: Database, visit: Visit) -> None:
    ids = await fill(database, 80)
    screen = await visit(server.url)
    await screen.live()
    for job_id in ids[:70]:
        await screen.page.keyboard.press("j")
        await expect(screen.posting(job_id)).to_be_focused()
    await expect(screen.posting(ids[69])).to_be_in_viewport()


async def test_a_screen_reader_finds_its_way_and_hears_counts(
    server: Running, database: Database, visit: Visit
) -> None:
    await fill(database, 2)
    screen = await visit(server.url)
    page = screen.page
    await screen.live()

    for landmark in ("banner", "main", "search", "contentinfo"):
        await expect(page.get_by_role(landmark)).to_have_count(1)
    await expect(page.get_by_role("form", name="Filters")).to_be_visible()
    await expect(page.get_by_role("heading", level=1)).to_have_count(1)
    await expect(page.get_by_role("feed", name="Job postings, newest first")).to_have_attribute("aria-busy", "false")
    await expect(page.get_by_role("article", name="Job 2")).to_be_visible()
    assert await page.evaluate("document.documentElement.lang") == "en"
    assert await page.evaluate(NAMELESS) == []
    assert await page.evaluate(DANGLING) == []

    announcer = page.locator("#announcer")
    await expect(announcer).to_have_attribute("aria-live", "polite")
    await expect(announcer).to_have_text("2 postings loaded, newest first.")
    await fill(database, 3)
    await expect(announcer).to_have_text("3 new postings.")

    await page.evaluate("document.activeElement.blur()")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the postings")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator("#jobs")).to_be_focused()
    await expect(page).to_have_url(f"{server.url}/#jobs")


# Controls without a name, and references to what is not there.
NAMELESS = """[...document.querySelectorAll('button, a[href], input, select, textarea, summary, dialog, [role=region]')]
  .filter((control) => !(control.hidden || control.labels?.length || control.ariaLabel?.trim() || control.textContent.trim()
    || control.getAttribute('aria-labelledby')))
  .map((control) => control.outerHTML)"""
DANGLING = """['aria-controls', 'aria-describedby', 'aria-labelledby', 'for', 'list', 'popovertarget'].flatMap((name) =>
  [...document.querySelectorAll(`[${name}]`)].filter((element) => !document.getElementById(element.getAttribute(name))))
  .map((element) => element.outerHTML)"""

LONG = {
    "company": "Donaudampfschifffahrtsgesellschaft" * 10,
    "url": "https://" + "a" * 60 + "." + "b" * 60 + ".example/" + "c" * 300,
    "location": "L" * 400,
    "tags": ["t" * 300] * 12,
    "seniority": "s" * 200,
    "description": "d" * 2000,
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_at_no_width_one_has_to_scroll_sideways(
    server: Running, database: Database, visit: Visit, scheme: str
) -> None:
    await fill(database, 3)
    await post(database, "W" * 1000, **LONG)
    screen = await visit(server.url + "/?q=" + "w" * 90, viewport={"width": 320, "height": 640}, color_scheme=scheme)
    await screen.live()
    assert await screen.sideways() <= 0
    await screen.page.get_by_role("button", name="Remove filter search").first.click()
    await expect(screen.page.locator("#jobs article")).to_have_count(4)
    await screen.page.keyboard.press("Escape")
    await screen.page.keyboard.press("j")
    await screen.page.keyboard.press("o")
    await expect(screen.page.locator(".details:visible")).to_contain_text("dddd")
    for width in (320, 390, 768, 1360):
        await screen.page.set_viewport_size({"width": width, "height": 640})
        assert await screen.sideways() <= 0, width
    assert (await screen.page.evaluate(LIGHTNESS) > 0.5) == (scheme == "light")


# Of what is behind the text, from 0 to 1.
LIGHTNESS = """[document.body, document.documentElement].map((element) => getComputedStyle(element).backgroundColor)
  .find((colour) => !/, 0\\)$/.test(colour)).match(/[\\d.]+/g).slice(0, 3).reduce((sum, part) => sum + part / 765, 0)"""


async def test_on_a_phone_the_filters_are_in_a_sheet(server: Running, database: Database, visit: Visit) -> None:
    await post(database, "Baker", workplace="onsite")
    coder = await post(database, "Coder", workplace="remote")
    screen = await visit(server.url, viewport={"width": 320, "height": 568}, has_touch=True, is_mobile=True)
    await screen.live()
    sheet = screen.page.get_by_role("dialog", name="Filters")
    await expect(sheet).to_be_hidden()
    await screen.page.get_by_role("button", name="Filters").tap()
    await expect(sheet).to_be_visible()
    await sheet.get_by_role("checkbox", name="Remote").tap()
    await sheet.get_by_text("More filters").tap()
    assert await screen.sideways() <= 0
    assert await sheet.evaluate("sheet => sheet.scrollWidth <= sheet.clientWidth")
    await sheet.get_by_role("button", name="Show postings").tap()
    await expect(sheet).to_be_hidden()
    await screen.shows([coder])
    await expect(screen.page.get_by_role("button", name="Filters, 1 set")).to_be_visible()
