"""What is open to whom: all on loopback to who comes straight, nothing on a public address; and what is always open."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.conftest import Running, make_settings, run_server
from tests.processes import refused, serving
from tests.reader import reading
from tests.server.credentials import JOB, asking, check_denied, guarded, make_key
from tests.waiting import until

STREAM = "/v1/jobs/stream"
ALWAYS = ("/healthz", "/", "/static/app.js", "/docs", "/openapi.json")
HERE = ("localhost", "LocalHost:8000", "app.localhost", "127.0.0.1", "127.8.9.10:80", "[::1]", "[::1]:8000")
ELSEWHERE = (
    "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost", "10.0.0.1", "0.0.0.0",
    "[::]", "[2001:db8::1]", "192.168.1.5:8000",
)  # fmt: skip
PROXIED = (
    {"Forwarded": "for=127.0.0.1"}, {"X-Forwarded-For": "127.0.0.1"}, {"X-Real-IP": "127.0.0.1"}, {"Via": "1.1 proxy"},
    {"Forwarded": ""}, {"x-forwarded-for": ""},
)  # fmt: skip


@pytest.fixture
async def client(server: Running) -> AsyncIterator[httpx.AsyncClient]:
    """Without a credential, on loopback."""
    async with asking(server) as client:
        yield client


async def check_closed(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Reading, the stream and writing are refused."""
    check_denied(await client.get("/v1/jobs", headers=headers))
    check_denied(await client.get("/v1/jobs/1", headers=headers))
    check_denied(await client.get(STREAM, headers=headers))
    check_denied(await client.post("/v1/jobs", json=JOB, headers=headers))
    check_denied(await client.put("/v1/jobs/a/b", json=JOB, headers=headers))
    check_denied(await client.post("/v1/jobs/1/close", headers=headers))
    check_denied(await client.get("/v1/session", headers=headers))
    check_denied(await client.post("/v1/tickets", headers=headers))


async def test_on_loopback_reading_and_writing_need_nothing(server: Running, client: httpx.AsyncClient) -> None:
    async with reading(server.url) as reader:
        await reader.until("synced")
        made = await client.post("/v1/jobs", json=JOB)
        assert made.status_code == 201
        assert [frame.data["title"] for frame in await reader.jobs(1)] == ["Baker"]
    assert (await client.get(made.headers["location"])).status_code == 200
    assert len((await client.get("/v1/jobs")).json()["jobs"]) == 1
    assert (await client.post(f"{made.headers['location']}/close")).status_code == 200
    assert (await client.get("/v1/session")).json() == {
        "name": "open", "scopes": ["admin", "metrics", "read", "write"], "filter": "", "expires_at": None,
    }  # fmt: skip


@pytest.mark.parametrize("http2", [False, True])
async def test_on_loopback_only_a_name_of_this_machine_is_good(server: Running, http2: bool) -> None:
    """A page of another site may have a name that leads here (DNS rebinding); its Host says so."""
    for host in (*HERE, *ELSEWHERE):  # each on a connection of its own, which has a ration of refusals
        async with httpx.AsyncClient(base_url=server.url, trust_env=False, http1=not http2, http2=http2) as client:
            if host in ELSEWHERE:
                await check_closed(client, {"Host": host})
                continue
            assert (await client.get("/v1/jobs", headers={"Host": host})).status_code == 200, host
            assert (await client.post("/v1/jobs", json=JOB, headers={"Host": host})).status_code == 201, host


async def test_on_loopback_what_a_proxy_passed_on_needs_a_credential(
    server: Running, client: httpx.AsyncClient
) -> None:
    for headers in PROXIED:
        await check_closed(client, headers)
    key = await make_key(server, "write")
    for headers in PROXIED:
        async with asking(server, key) as known:
            assert (await known.post("/v1/jobs", json=JOB, headers=headers)).status_code == 201
            assert (await known.get("/v1/jobs", headers=headers)).status_code == 200


async def test_a_proxy_that_is_trusted_is_a_proxy_all_the_same(dsn: str) -> None:
    async with run_server(make_settings(dsn, trusted_proxies="127.0.0.0/8")) as running, asking(running) as client:
        for address in ("127.0.0.1", "203.0.113.9"):
            await check_closed(client, {"X-Forwarded-For": address})


async def test_reading_can_be_opened_to_all_and_writing_stays_closed(dsn: str) -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        async with run_server(guarded(dsn, host=host, reading="open")) as running, asking(running) as client:
            for headers in ({"Host": "jobs.example"}, {"X-Forwarded-For": "203.0.113.9"}):
                assert (await client.get("/v1/jobs", headers=headers)).status_code == 200
                async with reading(running.url, headers=headers) as reader:
                    await reader.until("synced")
                check_denied(await client.post("/v1/jobs", json=JOB, headers=headers))
                assert (await client.get("/v1/session", headers=headers)).json()["scopes"] == ["read"]


async def test_on_a_public_address_reading_and_writing_need_a_credential(dsn: str) -> None:
    async with run_server(guarded(dsn)) as running, asking(running) as client:
        await check_closed(client, {})
        await check_closed(client, {"Host": "localhost"})
        for address in ALWAYS:
            assert (await client.get(address)).status_code == 200, address
        key = await make_key(running, "write")
        async with asking(running, key) as known:
            assert (await known.post("/v1/jobs", json=JOB)).status_code == 201
            assert len((await known.get("/v1/jobs")).json()["jobs"]) == 1


async def test_keys_can_be_asked_for_on_loopback_too(dsn: str) -> None:
    async with (
        run_server(make_settings(dsn, reading="keys", writing="keys")) as running,
        asking(running) as client,
    ):
        await check_closed(client, {})
    async with run_server(make_settings(dsn, writing="keys")) as running, asking(running) as client:
        assert (await client.get("/v1/jobs")).status_code == 200
        check_denied(await client.post("/v1/jobs", json=JOB))


async def test_what_is_always_open_is_open_through_a_proxy_and_under_any_name(client: httpx.AsyncClient) -> None:
    for address in ALWAYS:
        for headers in ({"Host": "jobs.example"}, *PROXIED):
            assert (await client.get(address, headers=headers)).status_code == 200, address


async def test_open_writing_on_a_public_address_is_refused_at_the_start(dsn: str) -> None:
    code, said = await refused(dsn, "--host", "0.0.0.0", "--port", "0", writing="open")
    assert code == 2
    assert "writing must not be open on 0.0.0.0" in said
    assert "feed key create" in said
    assert "Traceback" not in said


async def test_a_public_service_says_at_the_start_who_may_do_what(dsn: str) -> None:
    async with serving(dsn, flags=("--host", "0.0.0.0")) as service:
        await until(lambda: b"Reading and writing need a key." in service.printed)
        async with httpx.AsyncClient(base_url=service.url, trust_env=False) as client:
            await check_closed(client, {})
