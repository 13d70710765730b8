"""Operators see every source: over HTTP, in the metrics, and with `feed top --sources`."""

import math
from typing import Any

import asyncpg

from feed.access.grant import Scope
from feed.database.sources import SourceStore
from feed.model.source import NewSource
from feed.settings.settings import Settings
from tests.conftest import Running, make_settings, run_server
from tests.server.operators import asked, key_of
from tests.server.scraping import Scrape
from tests.server.test_cli_top import top
from tests.waiting import until

PATH = "/v1/sources"
ACME = NewSource("greenhouse", "acme", "boards.example", attribution="Acme")
RAN = """
UPDATE source SET tried_at = now(), succeeded_at = now(), changed_at = now(), next_at = now() + interval '15 min', open = 7,
       posted = posted + 9, closed = closed + 2, last_change = '{9,0,2}', bad = 1,
       faults = '[{"external_id": "7", "faults": [{"field": "title", "message": "is required"}]}]'
 WHERE name = $1
"""
"""A run, as its end is written."""
SUSPECT = "UPDATE source SET tried_at = now(), suspect = 'few', suspect_at = now() WHERE name = $1"


async def test_the_list_tells_of_a_source_before_and_after_its_first_run(
    server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    assert (await asked(server.url, path=PATH)).json()["sources"] == []
    await server.service.source_store.add(ACME)
    (new,) = (await asked(server.url, path=PATH)).json()["sources"]
    assert (new["name"], new["state"], new["attribution"]) == ("greenhouse:acme", "new", "Acme")
    assert [new[name] for name in ("last_try_at", "last_success_at", "last_change", "failing", "suspect")] == [None] * 5
    await database.execute(RAN, "greenhouse:acme")
    (ran,) = (await asked(server.url, path=PATH)).json()["sources"]
    assert ran["state"] == "ok"
    assert ran["last_change"] == {"at": ran["last_success_at"], "posted": 9, "updated": 0, "closed": 2}
    assert ran["faults"] == [{"external_id": "7", "faults": [{"field": "title", "message": "is required"}]}]
    await database.execute(SUSPECT, "greenhouse:acme")
    (suspect,) = (await asked(server.url, path=PATH)).json()["sources"]
    assert (suspect["state"], suspect["suspect"]["why"]) == ("suspect", "few")
    await server.service.source_store.pause("greenhouse:acme")
    (paused,) = (await asked(server.url, path=PATH)).json()["sources"]
    assert (paused["state"], paused["next_try_at"]) == ("paused", None)
    code, out, err = await top(server.url, "--sources")
    assert code == 0, err
    assert "1 source (1 paused)  7 open postings" in out
    assert "greenhouse:acme: suspect for" in out


async def test_only_an_admin_may_see_the_sources(dsn: str) -> None:
    async with run_server(make_settings(dsn, reading="keys", writing="keys", metrics="keys")) as running:
        assert (await asked(running.url, path=PATH)).status_code == 401
        for scope, status in ((Scope.WRITE, 403), (Scope.METRICS, 403), (Scope.ADMIN, 200)):
            assert (await asked(running.url, path=PATH, key=await key_of(running, scope))).status_code == status


async def test_the_leader_says_in_the_metrics_how_the_sources_are(
    settings: Settings, database: "asyncpg.Connection[Any]"
) -> None:
    name = "greenhouse:acme"
    async with run_server(settings) as server:
        store: SourceStore = server.service.source_store
        await until(server.service.sequencer.leading.is_set)
        await server.service.source_gauges.read()
        await store.add(ACME)
        await server.service.source_gauges.read()
        scrape = await Scrape.of(server.url)
        assert scrape("feed_sources", state="new") == 1
        assert scrape("feed_source_overdue_seconds", source=name) >= 0
        await database.execute(RAN, name)
        await server.service.source_gauges.read()
        scrape = await Scrape.of(server.url)
        assert scrape("feed_source_open_postings", source=name) == 7
        assert scrape("feed_source_runs_total", source=name, outcome="changed") == 1
        assert scrape("feed_source_postings_total", source=name, change="posted") == 9
        await database.execute(SUSPECT, name)
        await server.service.source_gauges.read()
        scrape = await Scrape.of(server.url)
        assert (scrape("feed_sources", state="suspect"), scrape("feed_source_suspect", source=name)) == (1, 1)
    async with run_server(make_settings(settings.database.url or "", sequencer=False)) as follower:
        assert math.isnan((await Scrape.of(follower.url))("feed_sources", state="suspect"))
