"""Limits on access: bad credentials, reads, writes and streams, of one address or key; and how each is said."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from feed.access.key import new_key
from feed.settings.settings import Settings
from tests.conftest import Running, make_settings, run_server
from tests.reader import reading
from tests.server.credentials import JOB, asking, bearer, goodbye, guarded, make_key
from tests.waiting import until

STREAM = "/v1/jobs/stream"


def at(address: str) -> dict[str, str]:
    """The header of a client at some address, behind the proxy of these tests."""
    return {"X-Forwarded-For": address}


def limited(dsn: str, **more: Any) -> Settings:
    """Settings with no address exempt, behind a proxy that tells addresses."""
    return guarded(dsn, **{"limits_exempt": (), "trusted_proxies": "127.0.0.0/8", **more})


def check_too_many(answer: httpx.Response) -> None:
    assert answer.status_code == 429, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["status"] == 429
    assert answer.json()["detail"]


async def refusal(url: str, headers: dict[str, str], *, http2: bool = False) -> tuple[str, int]:
    """Why a stream that cannot be had now ends, and when to come back, in milliseconds. Its status is 200."""
    async with reading(url, headers=headers, http2=http2) as reader:
        last = await goodbye(reader)
        assert last.retry
        return last.data["reason"], last.retry


@pytest.mark.parametrize("kind", ["unknown key", "slip", "nonsense", "cookie", "ticket"])
async def test_too_many_bad_credentials_of_one_address_are_refused_for_a_while(dsn: str, kind: str) -> None:
    async with run_server(limited(dsn, denied_rate="3/hour")) as running, asking(running) as client:
        good = await make_key(running)

        def bad() -> dict[str, str]:
            text = new_key().text
            match kind:
                case "unknown key":
                    return bearer(text)
                case "slip":
                    return bearer(text[:-1] + ("0" if text[-1] != "0" else "1"))
                case "nonsense":
                    return bearer("nonsense")
                case "cookie":
                    return {"Cookie": "feed_session=nonsense"}
                case _:
                    return {}

        address = f"{STREAM}?ticket=feedticket_{'A' * 32}" if kind == "ticket" else "/v1/jobs"
        for _ in range(3):
            assert (await client.get(address, headers=bad() | at("203.0.113.9"))).status_code == 401
        for _ in range(2):
            if kind == "ticket":
                async with client.stream("GET", address, headers=at("203.0.113.9")) as answer:
                    assert answer.status_code == 200
                    assert b'"reason":"rate"' in await answer.aread()
                continue
            check_too_many(await client.get(address, headers=bad() | at("203.0.113.9")))
            check_too_many(await client.post("/v1/jobs", json=JOB, headers=bad() | at("203.0.113.9")))
            check_too_many(await client.post("/v1/session", headers=bad() | at("203.0.113.9")))
            for http2 in (False, True):
                reason, _ = await refusal(running.url, bad() | at("203.0.113.9"), http2=http2)
                assert reason == "rate"
        # Others are not concerned; /healthz never is.
        assert (await client.get("/v1/jobs", headers=bad() | at("203.0.113.10"))).status_code == 401
        assert (await client.get("/v1/jobs", headers=bearer(good) | at("203.0.113.11"))).status_code == 200
        assert (await client.get("/healthz", headers=at("203.0.113.9"))).status_code == 200


async def test_a_good_credential_is_let_in_whatever_its_neighbours_tried(dsn: str) -> None:
    """One client does not lock out those who share its address; only keys not seen before must wait with the guesses."""
    async with run_server(limited(dsn, denied_rate="3/hour")) as running, asking(running) as client:
        good, unseen = await make_key(running), await make_key(running)
        assert (await client.get("/v1/jobs", headers=bearer(good))).status_code == 200
        for _ in range(3):
            assert (await client.get("/v1/jobs", headers=bearer(new_key()) | at("203.0.113.9"))).status_code == 401
        for key in (new_key(), unseen):
            check_too_many(await client.get("/v1/jobs", headers=bearer(key) | at("203.0.113.9")))
        assert (await client.get("/v1/jobs", headers=bearer(good) | at("203.0.113.9"))).status_code == 200


async def test_to_have_no_credential_is_no_attempt(dsn: str) -> None:
    async with run_server(limited(dsn, denied_rate="1/hour")) as running, asking(running) as client:
        for _ in range(3):
            assert (await client.get("/v1/jobs", headers=at("203.0.113.9"))).status_code == 401


async def test_bad_credentials_of_an_exempt_address_are_not_counted(dsn: str) -> None:
    async with run_server(guarded(dsn, denied_rate="1/hour")) as running, asking(running) as client:
        for _ in range(4):
            assert (await client.get("/v1/jobs", headers=bearer("nonsense"))).status_code == 401


async def test_an_ipv6_client_is_counted_by_its_network(dsn: str) -> None:
    async with run_server(limited(dsn, denied_rate="2/hour")) as running, asking(running) as client:
        for n in (1, 2):
            assert (await client.get("/v1/jobs", headers=bearer(new_key()) | at(f"2001:db8::{n}"))).status_code == 401
        check_too_many(await client.get("/v1/jobs", headers=bearer(new_key()) | at("2001:db8::3")))
        assert (await client.get("/v1/jobs", headers=bearer(new_key()) | at("2001:db8:0:1::3"))).status_code == 401


@pytest.fixture
async def public(dsn: str) -> AsyncIterator[Running]:
    """A service with small limits by key; the addresses of these tests are exempt from those by address."""
    async with run_server(guarded(dsn, write_rate="2/hour", read_rate="3/hour")) as running:
        yield running


async def test_too_many_writes_of_one_key_are_refused_and_write_nothing(public: Running) -> None:
    one, other = await make_key(public, "write"), await make_key(public, "write")
    async with asking(public, one) as client, asking(public, other) as others:
        assert (await client.post("/v1/jobs", json=JOB)).status_code == 201
        assert (await client.put("/v1/jobs/a/b", json=JOB)).status_code == 201
        check_too_many(await client.post("/v1/jobs", json=JOB))
        check_too_many(await client.put("/v1/jobs/a/b", json=JOB | {"title": "Other"}))
        check_too_many(await client.post("/v1/jobs/1/close"))
        check_too_many(await client.post("/v1/jobs", content=b"{}\n", headers={"Content-Type": "application/x-ndjson"}))
        assert (await client.get("/v1/jobs")).status_code == 200  # reads are counted apart
        assert len((await others.get("/v1/jobs?open=any")).json()["jobs"]) == 2
        assert (await others.post("/v1/jobs", json=JOB)).status_code == 201


async def test_too_many_reads_of_one_key_are_refused_and_its_streams_are_not(public: Running) -> None:
    one, other = await make_key(public, "write"), await make_key(public)
    async with asking(public, one) as client, asking(public, other) as others:
        assert (await client.post("/v1/jobs", json=JOB)).status_code == 201
        for address in ("/v1/jobs", "/v1/jobs/1", "/v1/jobs?company=acme"):
            assert (await client.get(address)).status_code == 200
        check_too_many(await client.get("/v1/jobs"))
        check_too_many(await client.get("/v1/jobs/1"))
        assert (await others.get("/v1/jobs")).status_code == 200
        assert (await client.post("/v1/jobs", json=JOB)).status_code == 201
    async with reading(public.url, headers=bearer(one)) as reader:
        await reader.until("synced")


async def test_where_writing_is_open_addresses_are_counted_instead(dsn: str) -> None:
    settings = make_settings(dsn, limits_exempt=(), write_rate="1/hour", read_rate="1/hour")
    async with run_server(settings) as running, asking(running) as client:
        assert (await client.post("/v1/jobs", json=JOB)).status_code == 201
        check_too_many(await client.post("/v1/jobs", json=JOB))
        assert (await client.get("/v1/jobs")).status_code == 200
        check_too_many(await client.get("/v1/jobs"))


@pytest.mark.parametrize("http2", [False, True])
async def test_who_opens_streams_too_often_is_told_to_come_back_later_than_usual(dsn: str, http2: bool) -> None:
    settings = limited(dsn, stream_rate="2/hour", retry_min=0.05, retry_max=0.1, retry_busy=5.0)
    async with run_server(settings) as running:
        key, other = await make_key(running), await make_key(running)
        usual = []
        for _ in range(2):
            async with reading(running.url, headers=bearer(key) | at("203.0.113.9"), http2=http2) as reader:
                usual.append((await reader.until("synced"))[0].retry or 0)
        for credential in (key, other):  # the address counts, whosever the key
            reason, retry = await refusal(running.url, bearer(credential) | at("203.0.113.9"), http2=http2)
            assert reason == "rate"
            assert retry > max(usual)
            assert retry >= 100
        async with reading(running.url, headers=bearer(key) | at("203.0.113.10"), http2=http2) as reader:
            await reader.until("synced")
        async with asking(running, key) as client:
            assert (await client.get("/v1/jobs", headers=at("203.0.113.9"))).status_code == 200


@pytest.mark.parametrize("http2", [False, True])
async def test_one_stream_too_many_of_an_address_is_told_so(dsn: str, http2: bool) -> None:
    settings = limited(dsn, streams_per_address=2, retry_min=0.05, retry_max=0.1, retry_busy=5.0)
    async with run_server(settings) as running:
        one, other = bearer(await make_key(running)), bearer(await make_key(running))
        mine = at("203.0.113.9")
        async with (
            reading(running.url, headers=one | mine, http2=http2) as first,
            reading(running.url, headers=other | mine, http2=http2) as second,
        ):
            usual = [(await reader.until("synced"))[0].retry or 0 for reader in (first, second)]
            reason, retry = await refusal(running.url, one | mine, http2=http2)
            assert reason == "full"
            assert retry > max(usual)
            async with reading(running.url, headers=one | at("203.0.113.10"), http2=http2) as elsewhere:
                await elsewhere.until("synced")
        await until(lambda: not running.service.streams)
        async with reading(running.url, headers=one | mine, http2=http2) as again:
            await again.until("synced")


async def test_a_proxy_that_is_not_trusted_cannot_hide_who_asks(dsn: str) -> None:
    settings = limited(dsn, trusted_proxies="10.0.0.0/8", denied_rate="3/hour")
    async with run_server(settings) as running, asking(running) as client:
        for n in range(3):
            bad = bearer(new_key()) | at(f"203.0.113.{n}")
            assert (await client.get("/v1/jobs", headers=bad)).status_code == 401
        check_too_many(await client.get("/v1/jobs", headers=bearer(new_key()) | at("203.0.113.99")))
