"""API keys on a running service: what each scope opens, which part of the feed a key shows, and when it is good no more."""

import time
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from feed.access.key import new_key
from feed.database.access import AccessStore
from tests.conftest import Running, run_server
from tests.reader import reading
from tests.server.credentials import JOB, asking, bearer, check_denied, farewell, guarded, make_key
from tests.waiting import until

STREAM = "/v1/jobs/stream"


@pytest.fixture
async def public(dsn: str) -> AsyncIterator[Running]:
    """A service that asks for credentials."""
    async with run_server(guarded(dsn)) as running:
        yield running


@pytest.fixture
async def writer(public: Running) -> AsyncIterator[httpx.AsyncClient]:
    """Who may write to it."""
    async with asking(public, await make_key(public, "write")) as client:
        yield client


async def post(writer: httpx.AsyncClient, title: str, company: str) -> str:
    """Write a posting under its title as its key; returns its address."""
    answer = await writer.put(f"/v1/jobs/test/{title}", json=JOB | {"title": title, "company": company})
    assert answer.status_code in (200, 201), answer.text
    address: str = answer.json()["href"]
    return address


async def test_each_scope_opens_what_it_is_for_and_nothing_else(public: Running) -> None:
    for scope, read, write in (("read", 200, 403), ("write", 200, 201), ("admin", 200, 201), ("metrics", 403, 403)):
        async with asking(public, await make_key(public, scope)) as client:
            assert (await client.get("/v1/jobs")).status_code == read, scope
            assert (await client.post("/v1/jobs", json=JOB)).status_code == write, scope
            if read == 200:
                async with reading(public.url, headers=dict(client.headers)) as reader:
                    await reader.until("synced")
            else:
                check_denied(await client.get(STREAM), 403)
                check_denied(await client.post("/v1/session"), 403)
                check_denied(await client.post("/v1/tickets"), 403)
            if write == 403:
                check_denied(await client.post("/v1/jobs", json=JOB), 403)
                check_denied(await client.put("/v1/jobs/a/b", json=JOB), 403)
                check_denied(await client.post("/v1/jobs/1/close"), 403)
    assert public.service.hub.head == 2


async def test_a_bad_key_is_refused_everywhere_and_on_the_stream_too(
    public: Running, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    good, expired, revoked = [await make_key(public, "admin") for _ in range(3)]
    await database.execute("UPDATE api_key SET expires_at = now() - interval '1 second' WHERE id = $1", expired.id)
    await public.service.access.revoke_key(revoked.id)
    wrong = good.text[:-1] + ("0" if good.text[-1] != "0" else "1")
    others = (
        {"Authorization": good.text}, {"Authorization": f"Basic {good.text}"}, {"Authorization": "Bearer"},
        {"Authorization": ""}, {"X-API-Key": good.text},
    )  # fmt: skip
    for headers in ({}, bearer(wrong), bearer(new_key()), bearer(expired), bearer(revoked), *others):
        async with asking(public) as client:
            client.headers.update(headers)
            for address in ("/v1/jobs", "/v1/jobs/1", STREAM, f"{STREAM}?from=earliest", "/v1/session"):
                check_denied(await client.get(address))
            check_denied(await client.post("/v1/jobs", json=JOB))
            check_denied(await client.post("/v1/session"))
            check_denied(await client.post("/v1/tickets"))
    for query in (f"?key={good.text}", f"?access_token={good.text}"):
        async with asking(public) as client:
            assert (await client.get(f"/v1/jobs{query}")).status_code in (401, 422)
    async with asking(public) as client:
        assert (await client.get("/v1/jobs", headers={"Authorization": f"bearer  {good.text}"})).status_code == 200


async def test_a_wrong_letter_is_refused_without_asking_the_database(
    public: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    ask = AccessStore.key

    async def counted(store: AccessStore, identity: str) -> object:
        looked.append(identity)
        return await ask(store, identity)

    monkeypatch.setattr(AccessStore, "key", counted)
    good = await make_key(public)
    for place in range(len("feedkey_"), len(good.text)):
        wrong = good.text[:place] + ("0" if good.text[place] != "0" else "1") + good.text[place + 1 :]
        async with asking(public, wrong) as client:
            check_denied(await client.get("/v1/jobs"))
    assert looked == []
    async with asking(public, good) as client:
        assert (await client.get("/v1/jobs")).status_code == 200
    assert looked == [good.id]


async def test_a_key_shows_its_part_of_the_feed_live_in_replay_and_in_the_list(
    public: Running, writer: httpx.AsyncClient
) -> None:
    key = await make_key(public, wanted="company=acme")
    before, foreign = await post(writer, "Baker", "Acme"), await post(writer, "Miller", "Other")
    async with asking(public, key) as client:
        for query in ("", "?company=acme", "?company=other&company=acme", "?open=any"):
            jobs = (await client.get(f"/v1/jobs{query}")).json()["jobs"]
            assert [job["title"] for job in jobs] == ["Baker"], query
        assert (await client.get("/v1/jobs?company=other")).json()["jobs"] == []
        assert (await client.get(before)).status_code == 200
        check_denied(await client.get(foreign), 404)
        check_denied(await client.get("/v1/jobs/999999"), 404)
        assert (await client.get("/v1/session")).json()["filter"] == "company=acme"
    async with (
        reading(public.url, "?from=earliest", headers=bearer(key)) as whole,
        reading(public.url, "?company=other&from=earliest", headers=bearer(key)) as wider,
        reading(public.url, "?q=cook&last_event_id=0", headers=bearer(key)) as narrower,
        reading(public.url, "?from=earliest", headers=dict(writer.headers)) as everything,
    ):
        for n, (title, company) in enumerate([("Cook", "Acme"), ("Cook 2", "Other"), ("Smith", "Acme")]):
            await post(writer, title, company)
            await until(lambda n=n: public.service.hub.head == 3 + n)
        assert [frame.data["title"] for frame in await everything.jobs(5)] == [
            "Baker", "Miller", "Cook", "Cook 2", "Smith",
        ]  # fmt: skip
        assert [frame.data["title"] for frame in await whole.jobs(3)] == ["Baker", "Cook", "Smith"]
        assert [frame.data["title"] for frame in await narrower.jobs(1)] == ["Cook"]
        # What it must not see would have come by now: the stream is told goodbye behind it.
        await public.service.access.revoke_key(key.id)
        for reader in (whole, wider, narrower):
            frames = await reader.rest()
            assert not [frame for frame in frames if frame.event in ("posted", "updated", "closed")]
            assert frames[-1].data["reason"] == "revoked"


async def test_what_leaves_a_keys_part_of_the_feed_is_closed_for_its_holder(
    public: Running, writer: httpx.AsyncClient
) -> None:
    key = await make_key(public, wanted="company=acme")
    address = await post(writer, "Baker", "Acme")
    await until(lambda: public.service.hub.head == 1)
    async with (
        reading(public.url, headers=bearer(key)) as theirs,
        reading(public.url, "?q=baker", headers=bearer(key)) as filtered,
        reading(public.url, headers=dict(writer.headers)) as everything,
    ):
        for reader in (theirs, filtered, everything):
            await reader.until("synced")
        await post(writer, "Baker", "Other")
        for reader in (theirs, filtered):
            left = (await reader.jobs(1))[0]
            assert (left.event, left.data["reason"]) == ("closed", "left_filter")
            assert left.data["href"] == address
        assert [frame.event for frame in await everything.jobs(1)] == ["updated"]
        async with asking(public, key) as client:
            check_denied(await client.get(address), 404)
            assert (await client.get("/v1/jobs")).json()["jobs"] == []
        await post(writer, "Baker", "Acme")
        for reader in (theirs, filtered, everything):
            assert (await reader.jobs(1))[0].data["company"] == "Acme"
    async with reading(public.url, "?last_event_id=1", headers=bearer(key)) as late:
        replayed = [frame for frame in await late.until("synced") if frame.event in ("posted", "updated", "closed")]
        assert [frame.data["company"] for frame in replayed if frame.event != "closed"] == ["Acme"]
        assert [frame.data["reason"] for frame in replayed if frame.event == "closed"] == ["left_filter"]


async def test_what_left_a_keys_part_of_the_feed_tells_nothing_of_where_it_went(
    public: Running, writer: httpx.AsyncClient
) -> None:
    key = await make_key(public, wanted="company=acme")
    await post(writer, "Baker", "Acme")
    await until(lambda: public.service.hub.head == 1)
    async with reading(public.url, headers=bearer(key)) as reader:
        await reader.until("synced")
        await post(writer, "Baker", "Secret takeover")
        left = (await reader.jobs(1))[0]
        assert left.event == "closed"
        assert "Secret" not in str(left.data)


@pytest.mark.parametrize("http2", [False, True])
async def test_one_stream_too_many_of_a_key_is_told_so_and_another_may_come_when_one_has_gone(
    public: Running, http2: bool
) -> None:
    key, other = await make_key(public, max_streams=1), await make_key(public, max_streams=1)
    async with reading(public.url, headers=bearer(key), http2=http2) as first:
        await first.until("synced")
        for query in ("", "?company=acme", "?from=earliest"):
            async with reading(public.url, query, headers=bearer(key), http2=http2) as second:
                assert await farewell(second) == "full"
        async with reading(public.url, headers=bearer(other), http2=http2) as others:
            await others.until("synced")
        async with asking(public, key) as client:
            assert (await client.get("/v1/jobs")).status_code == 200
    await until(lambda: not public.service.streams)
    async with reading(public.url, headers=bearer(key), http2=http2) as again:
        await again.until("synced")


async def test_an_open_stream_ends_when_its_key_expires(public: Running) -> None:
    key = await make_key(public, seconds=2)
    async with reading(public.url, headers=bearer(key)) as reader:
        await reader.until("synced")
        async with asking(public, key) as client:
            ends = (await client.get("/v1/session")).json()["expires_at"]
            assert ends is not None
            assert await farewell(reader) == "expired"
            check_denied(await client.get("/v1/jobs"))
            check_denied(await client.get(STREAM))


async def test_the_database_keeps_no_secret(
    public: Running, writer: httpx.AsyncClient, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    key = await make_key(public, wanted="company=acme")
    async with asking(public, key) as client:
        cookie = (await client.post("/v1/session")).cookies["feed_session"]
        ticket = (await client.post("/v1/tickets")).json()["ticket"]
        async with reading(public.url, f"?ticket={ticket}") as reader:
            await reader.until("synced")
    await public.service.access.revoke_key(key.id)
    kept = ""
    for table in ("api_key", "ticket", "revocation", "secret"):
        rows = await database.fetch(f"SELECT t::text AS text FROM {table} t")
        assert rows, table
        kept += "\n".join(row["text"] for row in rows)
    assert key.id in kept
    for secret in (key.text, key.text[-38:], key.text[-38:-6], cookie, cookie.split(".")[2], ticket, ticket[-32:]):
        assert secret not in kept
        assert secret.encode().hex() not in kept


async def test_times_of_a_key_are_those_of_the_database(public: Running) -> None:
    key = await make_key(public, seconds=3600)
    record = await public.service.access.key(key.id)
    assert record
    assert record.expires_at is not None
    assert round(record.expires_at - record.created_at) == 3600
    assert abs(record.created_at - time.time()) < 3600
