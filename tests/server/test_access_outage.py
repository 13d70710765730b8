"""The database away: who is known is let in for what needs no database, and nobody is taken for a stranger."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from feed.access.key import new_key
from tests.cluster import Cluster
from tests.conftest import Running, run_server
from tests.reader import reading
from tests.server.credentials import JOB, asking, bearer, check_denied, farewell, make_key, token, with_tokens
from tests.waiting import until

STREAM = "/v1/jobs/stream"


@pytest.fixture
async def own_cluster() -> AsyncIterator[Cluster]:
    """A cluster to stop."""
    made = Cluster().create()
    try:
        await asyncio.to_thread(made.start)
        yield made
    finally:
        await asyncio.to_thread(made.remove)


async def test_who_is_known_is_let_in_while_the_database_is_away_and_who_is_not_is_told_to_come_back(
    own_cluster: Cluster,
) -> None:
    settings = with_tokens(own_cluster.dsn(), key_cache=0.001, log_level="error")
    async with run_server(settings) as running, asking(running) as client:
        known, unknown, revoked, limited = [await make_key(running) for _ in range(3)] + [
            await make_key(running, wanted="company=acme", max_streams=1)
        ]
        await running.service.access.revoke_key(revoked.id)
        for key, status in ((known, 200), (revoked, 401), (limited, 200)):
            assert (await client.get("/v1/jobs", headers=bearer(key))).status_code == status
        cookie = (await client.post("/v1/session", headers=bearer(known))).cookies["feed_session"]
        client.cookies.clear()
        ticket = (await client.post("/v1/tickets", headers=bearer(known))).json()["ticket"]
        session = {"Cookie": f"feed_session={cookie}"}
        await stopped(own_cluster, running)

        for headers in (bearer(known), session, bearer(token())):
            async with reading(running.url, headers=headers) as reader:
                await reader.until("synced")
            assert (await client.get("/v1/session", headers=headers)).status_code == 200
            check_denied(await client.get("/v1/jobs", headers=headers), 503)  # it needs the database
            check_denied(await client.post("/v1/tickets", headers=headers), 503)
        assert (await client.post("/v1/session", headers=bearer(known))).status_code == 200
        client.cookies.clear()
        async with (
            reading(running.url, headers=bearer(limited)) as first,
            reading(running.url, headers=bearer(limited)) as second,
        ):
            await first.until("synced")
            assert await farewell(second) == "full"
        assert (await client.get("/v1/session", headers=bearer(limited))).json()["filter"] == "company=acme"

        # What it is not sure of, it neither lets in nor turns away for good.
        for stranger in (unknown, new_key()):
            for address in ("/v1/jobs", "/v1/session"):
                check_denied(await client.get(address, headers=bearer(stranger)), 503)
            check_denied(await client.post("/v1/session", headers=bearer(stranger)), 503)
            for http2 in (False, True):
                async with reading(running.url, headers=bearer(stranger), http2=http2) as reader:
                    assert await farewell(reader) == "unavailable"
        async with reading(running.url, f"?ticket={ticket}") as reader:
            assert await farewell(reader) == "unavailable"

        # What needs no look is refused all the same.
        slip = unknown.text[:-1] + ("0" if unknown.text[-1] != "0" else "1")
        for headers in (bearer(slip), bearer("nonsense"), {}, {"Cookie": "feed_session=x"}):
            check_denied(await client.get("/v1/session", headers=headers))
            check_denied(await client.get(STREAM, headers=headers))
        assert (await client.get("/v1/session", headers=bearer(revoked))).status_code in (401, 503)
        check_denied(await client.post("/v1/jobs", json=JOB, headers=bearer(known)), 403)
        assert (await client.get("/healthz")).status_code == 200

        await asyncio.to_thread(own_cluster.start)

        async def back() -> bool:
            return (await client.get("/v1/jobs", headers=bearer(unknown))).status_code == 200

        await until(back, 60)
        async with reading(running.url, f"?ticket={ticket}") as reader:  # the outage has not used it up
            await reader.until("synced")
        # A revocation from now on is heard, by who was there all the time too.
        async with reading(running.url, headers=bearer(known)) as reader:
            await reader.until("synced")
            await running.service.access.revoke_key(known.id)
            assert await farewell(reader) == "revoked"


async def stopped(cluster: Cluster, running: Running) -> None:
    """Stop the database, and wait until the service has noticed."""
    await asyncio.to_thread(cluster.stop, "immediate")
    async with asking(running) as client:

        async def noticed() -> bool:
            return (await client.get("/readyz")).status_code == 503

        await until(noticed, 60)
