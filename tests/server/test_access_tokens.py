"""Tokens (JWT) on a running service: what they open, which part of the feed they show, and their end on open streams."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime

import pytest

from tests.conftest import Running, run_server
from tests.reader import reading
from tests.server.credentials import (
    JOB,
    asking,
    bearer,
    check_denied,
    farewell,
    guarded,
    make_key,
    token,
    with_tokens,
)
from tests.waiting import until

STREAM = "/v1/jobs/stream"


@pytest.fixture
async def public(dsn: str) -> AsyncIterator[Running]:
    """A service that asks for keys or tokens."""
    async with run_server(with_tokens(dsn, jwt_leeway=0)) as running:
        yield running


async def test_each_scope_of_a_token_opens_what_it_is_for_and_nothing_else(public: Running) -> None:
    for scope, read, write in (("read", 200, 403), ("feed:write openid", 200, 201), ("admin", 200, 201),
                               ("metrics", 403, 403), ("openid", 403, 403), (None, 403, 403)):  # fmt: skip
        async with asking(public, token(scope=scope)) as client:
            assert (await client.get("/v1/jobs")).status_code == read, scope
            assert (await client.post("/v1/jobs", json=JOB)).status_code == write, scope
            if read == 403:
                check_denied(await client.get(STREAM), 403)
            else:
                async with reading(public.url, headers=dict(client.headers)) as reader:
                    await reader.until("synced")
                assert (await client.get("/v1/session")).json()["name"] == "jwt:alice"


async def test_a_bad_token_is_refused_everywhere_and_on_the_stream_too(public: Running) -> None:
    now = int(time.time())
    whole = token(scope="admin")
    for text in (
        token(key="x" * 40), token(exp=None), token(exp=now - 60), token(nbf=now + 600), token(feed_filter="nonsense=1"),
        whole[:-4], f"{whole}.x", f"{whole.rpartition('.')[0]}.", "nonsense", "a.b.c",
    ):  # fmt: skip
        async with asking(public, text) as client:
            check_denied(await client.get("/v1/jobs"))
            check_denied(await client.get(STREAM))
            check_denied(await client.post("/v1/jobs", json=JOB))
            check_denied(await client.post("/v1/session"))
            answer = await client.get("/v1/session")
            check_denied(answer)
            assert text not in answer.text


async def test_where_no_tokens_are_accepted_none_is(dsn: str) -> None:
    async with run_server(guarded(dsn)) as running, asking(running, token()) as client:
        check_denied(await client.get("/v1/jobs"))


async def test_a_token_shows_its_part_of_the_feed_and_opens_as_many_streams_as_it_says(public: Running) -> None:
    async with asking(public, token(sub="bob", scope="write")) as writer:
        for title, company in (("Baker", "Acme"), ("Miller", "Other"), ("Cook", "Acme")):
            assert (await writer.post("/v1/jobs", json=JOB | {"title": title, "company": company})).status_code == 201
    await until(lambda: public.service.hub.head == 3)
    headers = bearer(token(feed_filter="company=acme", feed_max_streams=1))
    async with asking(public) as client:
        client.headers.update(headers)
        assert [job["title"] for job in (await client.get("/v1/jobs")).json()["jobs"]] == ["Cook", "Baker"]
        check_denied(await client.get("/v1/jobs/2"), 404)
    async with reading(public.url, "?from=earliest", headers=headers) as reader:
        assert [frame.data["title"] for frame in await reader.until("synced") if frame.event == "posted"] == [
            "Baker", "Cook",
        ]  # fmt: skip
        async with reading(public.url, headers=headers) as second:
            assert await farewell(second) == "full"


@pytest.mark.parametrize("http2", [False, True])
async def test_a_stream_ends_with_its_token(public: Running, http2: bool) -> None:
    ends = int(time.time()) + 3
    async with (
        reading(public.url, headers=bearer(token(exp=ends)), http2=http2) as reader,
        reading(public.url, headers=bearer(token()), http2=http2) as longer,
    ):
        await reader.until("synced")
        assert await farewell(reader) == "expired"
        assert time.time() >= ends
        await until(lambda: len(public.service.streams) == 1)
        await longer.until("synced")


async def test_a_subjects_tokens_are_revoked_up_to_now_and_not_beyond(public: Running) -> None:
    now = int(time.time())
    before, undated = token(iat=now - 60), token(iat=None)
    others = token(sub="alicia", iat=now - 60), await make_key(public)
    async with (
        reading(public.url, headers=bearer(before)) as first,
        reading(public.url, headers=bearer(undated)) as second,
        reading(public.url, headers=bearer(others[0])) as third,
    ):
        for reader in (first, second, third):
            await reader.until("synced")
        await public.service.access.revoke("subject", "alice")
        assert await farewell(first) == await farewell(second) == "revoked"
        for credential in (before, undated):
            async with asking(public, credential) as client:
                check_denied(await client.get("/v1/jobs"))
                check_denied(await client.get(STREAM))
                check_denied(await client.post("/v1/session"))
        revoked_at = time.time()
        await until(lambda: int(time.time()) > revoked_at)
        after = token(iat=int(time.time()))
        for credential in (after, *others):
            async with asking(public, credential) as client:
                assert (await client.get("/v1/jobs")).status_code == 200
        await public.service.access.revoke("subject", "alicia")
        assert await farewell(third) == "revoked"


async def test_one_token_is_revoked_by_its_id(public: Running) -> None:
    one, other = token(jti="one"), token(jti="other")
    async with reading(public.url, headers=bearer(one)) as first, reading(public.url, headers=bearer(other)) as second:
        for reader in (first, second):
            await reader.until("synced")
        await public.service.access.revoke("token", "one")
        assert await farewell(first) == "revoked"
        async with asking(public, one) as client:
            check_denied(await client.get("/v1/jobs"))
            check_denied(await client.get(STREAM))
        async with asking(public, other) as client:
            assert (await client.get("/v1/jobs")).status_code == 200
        await public.service.access.revoke("token", "other")
        assert await farewell(second) == "revoked"


async def test_a_token_of_a_clock_in_milliseconds_is_a_token(public: Running) -> None:
    async with asking(public, token(exp=int(time.time()) * 1000 + 300_000)) as client:
        assert (await client.get("/v1/session")).status_code == 200
        assert (await client.post("/v1/session")).status_code == 200
        assert (await client.post("/v1/tickets")).status_code == 201


async def test_a_token_that_is_let_in_within_the_leeway_is_good_for_all_of_it(dsn: str) -> None:
    ends = int(time.time()) - 8
    settings = with_tokens(dsn, jwt_leeway=300, heartbeat=0.4)
    async with run_server(settings) as running, asking(running, token(exp=ends)) as client, AsyncExitStack() as stack:
        signed_in = await client.post("/v1/session")
        cookie = {"Cookie": f"feed_session={signed_in.cookies['feed_session']}"}
        ticket = (await client.post("/v1/tickets")).json()["ticket"]
        ways = (("", dict(client.headers)), ("", cookie), (f"?ticket={ticket}", {}))
        readers = [await stack.enter_async_context(reading(running.url, query, headers=way)) for query, way in ways]
        for reader in readers:
            await reader.until("synced")
            for _ in range(4):  # longer than the service takes to notice whose time is over
                await reader.until("heartbeat")
        assert {stream.caller.grant.expires_at for stream in running.service.streams} == {ends + 300}
        said = datetime.fromisoformat(signed_in.json()["expires_at"])
        assert said.timestamp() == ends + 300
