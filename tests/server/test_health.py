"""Health as strangers, operators and load balancers see it."""

from typing import Any

import httpx

from feed.access.grant import Scope
from feed.access.key import new_key
from tests.conftest import Running, make_settings, run_server

FAULT = "the database does not answer: db.internal:5432 refused user jobs"


async def asked(server: Running, path: str = "/readyz", **headers: str) -> tuple[int, dict[str, Any]]:
    """What it answers."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=30) as client:
        answer = await client.get(path, headers=headers)
    return answer.status_code, answer.json()


async def test_a_service_that_is_well_says_so_and_gives_no_reason(server: Running) -> None:
    status, body = await asked(server)
    assert (status, body["ready"], body["reason"], body["database"]) == (200, True, None, "ok")
    assert await asked(server, "/healthz") == (200, {"alive": True})


async def test_a_fault_is_told_in_full_where_reading_is_open(server: Running) -> None:
    server.service.tailer.fault = FAULT
    assert (await asked(server))[1]["database"] == FAULT


async def test_elsewhere_a_fault_is_one_word_to_strangers_and_told_to_administrators(dsn: str) -> None:
    async with run_server(make_settings(dsn, reading="keys", writing="keys")) as server:
        admin, reader = new_key(), new_key()
        await server.service.access.add_key(admin, Scope.ADMIN)
        await server.service.access.add_key(reader, Scope.READ)
        assert (await asked(server))[1]["database"] == "ok"
        server.service.tailer.fault = FAULT
        for headers in ({}, {"Authorization": f"Bearer {reader.text}"}, {"Authorization": "Bearer nonsense"}):
            status, body = await asked(server, **headers)
            assert status == 200 and body["database"] == "unavailable"
        assert (await asked(server, Authorization=f"Bearer {admin.text}"))[1]["database"] == FAULT


async def test_metrics_want_their_scope_where_they_are_not_open(dsn: str) -> None:
    async with (
        run_server(make_settings(dsn, metrics="keys", reading="keys", writing="keys")) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=30) as client,
    ):
        scraper, reader = new_key(), new_key()
        await server.service.access.add_key(scraper, Scope.METRICS)
        await server.service.access.add_key(reader, Scope.READ)
        statuses = [
            (await client.get("/metrics", headers=headers)).status_code
            for headers in (
                {}, {"Authorization": f"Bearer {reader.text}"}, {"Authorization": f"Bearer {scraper.text}"},
            )
        ]  # fmt: skip
        assert statuses == [401, 403, 200]
