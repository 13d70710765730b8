"""The page's filters: in the form, in the address, in the list and in the stream."""

import re

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visit
from tests.browser.screen import Database, post
from tests.conftest import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_filter_shows_only_matches_and_the_back_button_takes_it_off(
    server: Running, database: Database, visit: Visit
) -> None:
    baker = await post(database, "Baker", workplace="onsite")
    coder = await post(database, "Coder", workplace="remote")
    pilot = await post(database, "Pilot", workplace="remote")
    screen = await visit(server.url)
    page, active = screen.page, screen.page.locator("#active")
    await screen.shows([pilot, coder, baker])

    await page.get_by_role("checkbox", name="Remote").check()
    await expect(page).to_have_url(f"{server.url}/?workplace=remote")
    await expect(active).to_contain_text("workplace remote")
    await screen.shows([pilot, coder])
    await screen.live()
    await post(database, "Miller", workplace="onsite")
    tailor = await post(database, "Tailor", workplace="remote")
    await screen.shows([tailor, pilot, coder])

    await page.get_by_role("searchbox").fill("cod")
    await expect(page).to_have_url(f"{server.url}/?workplace=remote&q=cod")
    await screen.shows([coder])
    await expect(page.locator("#foot code")).to_contain_text("/v1/jobs/stream?workplace=remote&q=cod")

    await page.go_back()
    await screen.shows([tailor, pilot, coder])
    await expect(page.get_by_role("searchbox")).to_have_value("")
    await page.go_back()
    await expect(page).to_have_url(f"{server.url}/")
    await expect(active).to_be_hidden()
    await expect(screen.posting(baker)).to_be_visible()
    await page.go_forward()
    await screen.shows([tailor, pilot, coder])


async def test_an_address_with_filters_opens_filtered(server: Running, database: Database, visit: Visit) -> None:
    wanted = await post(database, "Data Engineer", tags=["Python"], location="Zürich, Switzerland")
    await post(database, "Data Engineer", tags=["Python"], location="Berlin, Germany")
    await post(database, "Data Engineer", tags=["Go"], location="Zürich, Switzerland")
    await post(database, "Gardener", tags=["Python"], location="Zürich, Switzerland")
    screen = await visit(server.url + "/?location=zurich&tag=python&q=engineer")
    await screen.shows([wanted])
    await expect(screen.page.get_by_role("searchbox")).to_have_value("engineer")
    words = [re.compile(word) for word in ("zurich", "python", "engineer")]
    await expect(screen.page.locator("#active li")).to_have_text(words)
    await screen.page.get_by_role("button", name="Remove filter tag: python").first.click()
    await expect(screen.page).to_have_url(f"{server.url}/?location=zurich&q=engineer")
    await screen.shows([wanted + 2, wanted])


async def test_a_posting_that_leaves_the_filter_says_so_and_goes_after_a_while(
    server: Running, database: Database, visit: Visit
) -> None:
    goes = await post(database, "Coder", workplace="remote")
    stays = await post(database, "Pilot", workplace="remote")
    screen = await visit(server.url + "/?workplace=remote", clock=True)
    await screen.live()
    await database.execute("UPDATE job SET workplace = 'onsite' WHERE id = $1", goes)
    await expect(screen.posting(goes)).to_have_attribute("data-state", "left")
    await expect(screen.posting(goes)).to_contain_text("No longer matches your filter")
    await screen.page.clock.fast_forward("01:00")
    await screen.shows([stays])


async def test_a_filter_without_a_match_listens_for_one(server: Running, database: Database, visit: Visit) -> None:
    await post(database, "Baker")
    screen = await visit(server.url + "/?company=Nowhere")
    await screen.live()
    await expect(screen.page.get_by_role("heading", name="Nothing matches yet")).to_be_visible()
    await screen.shows([await post(database, "Pilot", company="nowhere")])


async def test_a_filter_that_the_service_refuses_is_explained_beside_its_field(
    server: Running, database: Database, visit: Visit
) -> None:
    baker = await post(database, "Baker")
    screen = await visit(server.url + "/?salary_min=lots&currency=EUR")
    screen.expected.append("status of 422")
    await expect(screen.page.get_by_role("alert")).to_contain_text("This filter does not work")
    await screen.is_in("refused")
    salary = screen.page.get_by_role("textbox", name="Salary from")
    await expect(salary).to_have_attribute("aria-invalid", "true")
    await expect(screen.page.locator("#error-salary")).not_to_be_empty()
    await screen.page.get_by_role("button", name="Clear all").click()
    await screen.shows([baker])
    await expect(screen.page.get_by_role("alert")).to_have_count(0)
