"""The page over restarts: nothing lost, nothing doubled, and a list made anew where its place in the log is gone."""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from playwright.async_api import Route, expect

from tests.browser.conftest import Visit
from tests.browser.screen import UNREACHABLE, Database, Screen, fill, post
from tests.conftest import Running, make_settings, run_server
from tests.processes import serving
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass
class Writer:
    """Commits postings, one after the other, until it is told to stop."""

    database: Database
    ids: list[int] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        for number in itertools.count(1):
            self.ids.append(await post(self.database, f"Job {number}"))
            try:
                async with asyncio.timeout(0.05):
                    await self.stop.wait()
                return
            except TimeoutError:
                pass

    async def goes_on(self) -> None:
        """Wait for some more."""
        wanted = len(self.ids) + 10
        await until(lambda: len(self.ids) >= wanted)


@asynccontextmanager
async def writing(database: Database) -> AsyncIterator[Writer]:
    """A writer at work."""
    writer = Writer(database)
    task = asyncio.create_task(writer.run(), name="writer")
    try:
        yield writer
    finally:
        writer.stop.set()
        await task


async def all_is_on_screen(screen: Screen, ids: list[int]) -> None:
    """The page is live again and shows exactly these."""
    await expect(screen.posting(ids[-1])).to_be_visible()
    await screen.live()
    assert await screen.read_down() == ids[::-1]


async def test_a_drained_service_is_resumed_with_nothing_lost_or_doubled(
    dsn: str, port: int, database: Database, visit: Visit
) -> None:
    settings = make_settings(dsn, port=port)
    async with writing(database) as writer:
        async with run_server(settings) as first:
            screen = await visit(first.url)
            screen.expected.append(UNREACHABLE)
            await screen.live()
            await writer.goes_on()
        for _ in range(2):
            await screen.is_in("reconnecting")
            await writer.goes_on()
            async with run_server(settings):
                await screen.live()
                await writer.goes_on()
        states = await screen.witnessed("states")
        assert states[:5] == ["loading", "replaying", "live", "draining", "reconnecting"]
        assert states.count("draining") == 3
        async with run_server(settings):
            writer.stop.set()
            await all_is_on_screen(screen, writer.ids)


async def test_a_killed_service_is_resumed_with_nothing_lost_or_doubled(
    dsn: str, port: int, database: Database, visit: Visit
) -> None:
    on_port = ("--port", str(port))
    async with writing(database) as writer:
        async with serving(dsn, flags=on_port) as first:
            screen = await visit(first.url)
            screen.expected.append(UNREACHABLE)
            await screen.live()
            await writer.goes_on()
            first.signal(signal.SIGKILL)
            await first.ended()
        await screen.is_in("reconnecting")
        await expect(screen.status).to_contain_text("Reconnecting")
        await writer.goes_on()
        async with serving(dsn, flags=on_port):
            await screen.live()
            await writer.goes_on()
            writer.stop.set()
            await all_is_on_screen(screen, writer.ids)
            assert "draining" not in await screen.witnessed("states")


async def test_a_draining_service_is_shown_as_restarting(dsn: str, port: int, database: Database, visit: Visit) -> None:
    async with run_server(make_settings(dsn, port=port, retry_min=5, retry_max=6)) as first:
        screen = await visit(first.url)
        screen.expected.append(UNREACHABLE)
        await screen.live()
        await post(database, "Baker")
        first.stop.set()
        await screen.is_in("draining")
        await expect(screen.status).to_contain_text("Restarting")
        await expect(screen.status).to_contain_text("back in")
        await expect(screen.page.locator("#announcer")).to_contain_text("Server is restarting")


async def test_a_page_whose_place_was_pruned_fetches_the_list_anew(
    dsn: str, port: int, database: Database, visit: Visit
) -> None:
    settings = make_settings(dsn, port=port)
    ids = await fill(database, 5)
    async with run_server(settings) as first:
        screen = await visit(first.url)
        screen.expected.append(UNREACHABLE)
        await screen.live()
        await screen.shows(ids)
    missed = await fill(database, 3)
    await database.execute("UPDATE job SET title = 'Renamed' WHERE id = $1", ids[0])
    await database.execute("DELETE FROM job WHERE id = $1", ids[1])
    await database.fetch("SELECT advance(1000)")
    await database.execute("DELETE FROM log")
    await database.execute("UPDATE state SET floor = head")
    async with run_server(settings):
        await screen.shows([*missed, ids[0], *ids[2:]])
        await expect(screen.posting(ids[0])).to_contain_text("Renamed")
        await screen.live()
        last = await post(database, "The last")
        await screen.shows([last, *missed, ids[0], *ids[2:]])


async def test_a_page_from_before_a_restored_backup_fetches_the_list_anew(
    dsn: str, port: int, database: Database, visit: Visit
) -> None:
    settings = make_settings(dsn, port=port)
    kept = await fill(database, 3)
    async with run_server(settings) as first:
        screen = await visit(first.url)
        screen.expected.append(UNREACHABLE)
        await screen.live()
        lost = await fill(database, 4)
        await screen.shows([*lost, *kept])
    # As the backup had it: without the last four postings and their events, on another history.
    async with database.transaction():
        await database.execute("ALTER TABLE job DISABLE TRIGGER USER")
        await database.execute("DELETE FROM job WHERE id = ANY ($1)", lost)
        await database.execute("ALTER TABLE job ENABLE TRIGGER USER")
        await database.execute("DELETE FROM log WHERE position > 3")
        await database.execute("UPDATE state SET head = 3, ident = 'before the restore'")
    async with run_server(settings):
        await screen.shows(kept)
        await screen.live()
        again = await post(database, "After the restore")
        await screen.shows([again, *kept])


async def test_history_that_could_not_be_loaded_comes_when_the_service_is_back(
    dsn: str, port: int, database: Database, visit: Visit
) -> None:
    settings = make_settings(dsn, port=port)
    ids = await fill(database, 60)
    async with run_server(settings) as first:
        screen = await visit(first.url)
        screen.expected.append(UNREACHABLE)
        await screen.live()
        await screen.shows(ids[:50])
    end = screen.page.locator("#end")
    await end.scroll_into_view_if_needed()
    await expect(end).to_contain_text("Older postings could not be loaded.")
    await expect(end.get_by_role("button", name="Try again")).to_be_visible()
    async with run_server(settings):
        await screen.shows(ids)
        await expect(end).to_contain_text("That is everything so far.")


async def test_events_older_than_the_list_change_nothing(server: Running, database: Database, visit: Visit) -> None:
    ids = await fill(database, 3)
    for title in ("Second", "Third"):
        await database.execute("UPDATE job SET title = $2 WHERE id = $1", ids[0], title)

    async def with_an_old_place(route: Route) -> None:
        answer = await route.fetch()
        page = await answer.json()
        epoch, _, _ = page["stream"]["last_event_id"].partition(".")
        page["stream"] = {"last_event_id": f"{epoch}.0", "url": f"/v1/jobs/stream?last_event_id={epoch}.0"}
        await route.fulfill(response=answer, json=page)

    screen = await visit(server.url)
    await screen.live()
    await screen.page.route("**/v1/jobs?*", with_an_old_place)
    await screen.page.reload()
    await screen.live()
    await screen.shows(ids)
    await expect(screen.posting(ids[0])).to_contain_text("Third")


async def test_a_page_that_was_refused_goes_on_after_the_last_event_it_saw(
    dsn: str, port: int, database: Database, visit: Visit
) -> None:
    """As by a proxy in front of a service that is away; the browser itself then gives up."""
    settings = make_settings(dsn, port=port)
    async with run_server(settings) as first:
        screen = await visit(first.url)
        screen.expected.append(UNREACHABLE)
        await screen.live()
        seen = await fill(database, 2)
        await screen.shows(seen)
        await screen.page.route("**/v1/jobs/stream*", lambda route: route.fulfill(status=503))
        async with screen.page.expect_response(lambda response: response.status == 503):
            first.stop.set()
    missed = await fill(database, 3)
    await screen.page.unroute_all()
    async with screen.page.expect_request("**/v1/jobs/stream*") as asked, run_server(settings):
        await screen.shows([*missed, *seen])
        assert (await asked.value).url.endswith(".2")
        await screen.live()
