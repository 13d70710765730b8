"""Tickets: one stream for whoever has the address, with the filter it was asked for; and what a leaked one is worth."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import pytest

from feed.errors import DatabaseUnavailable
from tests.conftest import Running, run_server
from tests.processes import curling
from tests.reader import Frame, Reader, reading
from tests.server.credentials import (
    JOB,
    asking,
    bearer,
    check_denied,
    farewell,
    make_key,
    token,
    with_tokens,
)
from tests.waiting import until

BEHIND_A_PROXY = {"trusted_proxies": "127.0.0.0/8"}


@pytest.fixture
async def public(dsn: str) -> AsyncIterator[Running]:
    """A service that asks for keys or tokens, and believes what a proxy on this machine says of addresses."""
    async with run_server(with_tokens(dsn, jwt_leeway=0, **BEHIND_A_PROXY)) as running:
        yield running


def at(address: str, **more: str) -> dict[str, str]:
    """The headers of a client at some address."""
    return {"X-Forwarded-For": address} | {name.replace("_", "-"): value for name, value in more.items()}


async def take(running: Running, credential: Any, **wanted: Any) -> str:
    """The query of a new ticket's address."""
    async with asking(running, credential) as client:
        answer = await client.post("/v1/tickets", **({"json": wanted} if wanted else {}))
        assert answer.status_code == 201, answer.text
        where = urlsplit(answer.json()["url"])
        assert where.path == "/v1/jobs/stream"
        return f"?{where.query}"


async def tried(running: Running, query: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """What a stream that must be refused answers; it is not read where it is a stream after all."""
    async with (
        asking(running) as client,
        client.stream("GET", f"{running.url}/v1/jobs/stream{query}", headers=headers) as answer,
    ):
        if answer.status_code != 200:
            await answer.aread()
        return answer


async def refused(running: Running, query: str, headers: dict[str, str] | None = None) -> None:
    answer = await tried(running, query, headers)
    assert answer.status_code == 401, answer.status_code
    check_denied(answer)


async def post(running: Running, *companies: str) -> None:
    """Write a posting of each company, and wait until the service knows them."""
    head = running.service.hub.head + len(companies)
    async with asking(running, await make_key(running, "write")) as client:
        for company in companies:
            assert (await client.post("/v1/jobs", json=JOB | {"company": company})).status_code == 201
    await until(lambda: running.service.hub.head == head)


def companies(frames: list[Frame]) -> list[str]:
    return [frame.data["company"] for frame in frames if frame.event in ("posted", "updated", "closed")]


async def test_a_ticket_tells_where_to_open_its_stream_and_until_when(public: Running) -> None:
    async with asking(public, await make_key(public)) as client:
        answer = await client.post("/v1/tickets", json={"location": ["berlin", "köln"], "q": "baker & cook"})
        assert answer.status_code == 201
        assert answer.headers["cache-control"] == "no-store"
        said = answer.json()
        assert set(said) == {"ticket", "url", "expires_in"}
        where = urlsplit(said["url"])
        assert (where.scheme, where.netloc, where.path) == ("", "", "/v1/jobs/stream")
        assert parse_qs(where.query) == {
            "location": ["berlin", "köln"], "q": ["baker & cook"], "ticket": [said["ticket"]],
        }  # fmt: skip
        assert said["expires_in"] == 30
        for bad in ({"compny": ["acme"]}, {"workplace": ["moon"]}, {"salary_min": 5}, [], "x", {"ticket": "x"}):
            check_denied(await client.post("/v1/tickets", json=bad), 422)
        for nothing in ({"json": {}}, {"content": b""}, {"json": None}):
            assert (await client.post("/v1/tickets", **nothing)).status_code == 201


async def test_only_who_may_read_gets_a_ticket(public: Running) -> None:
    async with asking(public) as client:
        check_denied(await client.post("/v1/tickets"))
    async with asking(public, await make_key(public, "metrics")) as client:
        check_denied(await client.post("/v1/tickets"), 403)


@pytest.mark.parametrize("http2", [False, True])
async def test_a_ticket_opens_a_stream_without_any_other_credential(public: Running, http2: bool) -> None:
    query = await take(public, await make_key(public), company=["acme"])
    async with reading(public.url, query, http2=http2) as reader:
        await reader.until("synced")
        await post(public, "Other", "Acme")
        assert companies(await reader.jobs(1)) == ["Acme"]


async def test_curl_opens_the_address_as_it_was_given(public: Running) -> None:
    query = await take(public, await make_key(public))
    async with curling(f"{public.url}/v1/jobs/stream{query}") as curl:
        await curl.until("synced")


async def test_a_request_cannot_widen_what_a_ticket_is_for(public: Running) -> None:
    await post(public, "Acme", "Other", "Third")
    key = await make_key(public, wanted="company=acme&company=third")
    for asked, expected in (
        ("", ["Acme"]), ("&company=acme", ["Acme"]), ("&company=acme&company=other", ["Acme"]), ("&company=other", []),
        ("&company=third", []), ("&tag=none", []),
    ):  # fmt: skip
        query = await take(public, key, company=["acme", "other"])
        ticket = parse_qs(query[1:])["ticket"][0]
        async with reading(public.url, f"?ticket={ticket}{asked}&from=earliest") as reader:
            assert companies(await reader.until("synced")) == expected, asked


async def test_a_ticket_is_good_for_the_stream_and_nothing_else(public: Running) -> None:
    query = await take(public, await make_key(public, "admin"))
    ticket = parse_qs(query[1:])["ticket"][0]
    async with asking(public) as client:
        for address in ("/v1/jobs", "/v1/jobs/1", "/v1/session"):
            assert (await client.get(f"{address}{query}")).status_code in (401, 422)
            check_denied(await client.get(address, headers=bearer(ticket)))
            check_denied(await client.get(address, headers={"Cookie": f"feed_session={ticket}"}))
        check_denied(await client.post(f"/v1/tickets{query}"))
        check_denied(await client.post(f"/v1/session{query}"))
        check_denied(await client.post("/v1/jobs", json=JOB, headers=bearer(ticket)))
    async with reading(public.url, query) as reader:  # none of that has used it up
        await reader.until("synced")


async def test_a_bad_ticket_is_refused_whatever_else_comes_with_it(public: Running) -> None:
    key = await make_key(public)
    query = await take(public, key)
    ticket = parse_qs(query[1:])["ticket"][0]
    for bad in ("", "x", "feedticket_", ticket[:-1], f"{ticket}x", ticket.swapcase(), f"{ticket}%00", f"{ticket}%0A",
                "feedticket_" + "A" * 32, "%C3%A9"):  # fmt: skip
        for headers in ({}, {"Last-Event-ID": "1"}):
            assert (await tried(public, f"?ticket={bad}", headers)).status_code == 401, bad
    assert (await tried(public, f"?ticket={'x' * 5000}")).status_code in (401, 422)
    assert (await tried(public, f"{query}&ticket=x")).status_code in (401, 422)
    async with reading(public.url, query) as reader:
        await reader.until("synced")


async def test_a_second_opening_without_a_last_id_is_refused(public: Running) -> None:
    query = await take(public, await make_key(public))
    async with reading(public.url, query) as reader:
        await reader.until("synced")
        await refused(public, query)
        await refused(public, f"{query}&from=earliest")
        await refused(public, f"{query}&since=1h")
        await refused(public, query, {"Last-Event-ID": "nonsense"})
    await until(lambda: not public.service.streams)
    await refused(public, query)


async def test_its_stream_may_come_back_with_its_last_id(public: Running) -> None:
    query = await take(public, await make_key(public), company=["acme"])
    async with reading(public.url, query, headers=at("203.0.113.9")) as reader:
        await reader.until("synced")
        await post(public, "Acme", "Other")
        assert companies(await reader.jobs(1)) == ["Acme"]
        last = reader.last_id
    assert last
    await post(public, "Acme", "Other")
    for headers, extra in ((at("203.0.113.9", Last_Event_ID=last), ""), (at("203.0.113.9"), f"&last_event_id={last}")):
        for _ in range(2):
            async with reading(public.url, f"{query}{extra}", headers=headers) as reader:
                assert companies(await reader.until("synced")) == ["Acme"]


async def test_its_stream_may_come_back_from_where_it_began_and_not_from_before(public: Running) -> None:
    await post(public, "Acme", "Acme", "Acme")
    query = await take(public, await make_key(public))
    async with reading(public.url, query) as reader:
        began = (await reader.until("synced"))[1]
        assert began.position == 3
    epoch = public.service.hub.epoch
    for last in (f"{epoch}.3", "3"):
        async with reading(public.url, query, headers={"Last-Event-ID": last}) as reader:
            await reader.until("synced")
    for last in (f"{epoch}.2", "2", "0", f"{epoch}.0"):
        await refused(public, query, {"Last-Event-ID": last})
        await refused(public, f"{query}&last_event_id={last}")
    await refused(public, f"{query}&last_event_id=3", {"Last-Event-ID": "1"})  # the header wins


async def test_who_began_in_the_past_may_come_back_there(public: Running) -> None:
    await post(public, "Acme", "Acme", "Acme")
    query = await take(public, await make_key(public))
    async with reading(public.url, f"{query}&last_event_id=1") as reader:
        assert len(companies(await reader.until("synced"))) == 2
    async with reading(public.url, query, headers={"Last-Event-ID": "2"}) as reader:
        assert len(companies(await reader.until("synced"))) == 1
    await refused(public, query, {"Last-Event-ID": "0"})


@pytest.mark.parametrize("bound", [True, False])
async def test_from_another_address_it_may_not_come_back_unless_that_was_allowed(dsn: str, bound: bool) -> None:
    async with run_server(with_tokens(dsn, ticket_bound=bound, **BEHIND_A_PROXY)) as running:
        query = await take(running, await make_key(running))
        async with reading(running.url, query, headers=at("203.0.113.9")) as reader:
            await reader.until("synced")
            last = reader.last_id
            assert last
            for address in ("203.0.113.10", "2001:db8::1", "127.0.0.1"):
                answer = await tried(running, query, at(address, Last_Event_ID=last))
                assert answer.status_code == (401 if bound else 200), address
            for headers in (at("203.0.113.10"), at("203.0.113.9"), {}):
                await refused(running, query, headers)  # without a last id never
        async with reading(running.url, query, headers=at("203.0.113.9", Last_Event_ID=last)) as reader:
            await reader.until("synced")


async def test_what_a_stranger_tries_does_not_take_the_stream_from_its_owner(public: Running) -> None:
    query = await take(public, await make_key(public))
    async with reading(public.url, query, headers=at("203.0.113.9")) as reader:
        await reader.until("synced")
        for _ in range(3):
            await refused(public, query, at("203.0.113.66", Last_Event_ID=reader.last_id or ""))
        await post(public, "Acme")
        assert companies(await reader.jobs(1)) == ["Acme"]
        last = reader.last_id or ""
    async with reading(public.url, query, headers=at("203.0.113.9", Last_Event_ID=last)) as reader:
        await reader.until("synced")


async def test_a_ticket_that_nobody_used_is_good_for_a_short_time_only(dsn: str) -> None:
    async with run_server(with_tokens(dsn, ticket_age=0.001)) as running:
        for _ in range(3):
            query = await take(running, await make_key(running))
            database = await asyncpg.connect(dsn)

            async def old(query: str = query, database: Any = database) -> bool:
                return bool(
                    await database.fetchval(
                        "SELECT coalesce(bool_and(expires_at < clock_timestamp()), true) FROM feed.ticket"
                    )
                )

            await until(old)
            await database.close()
            await refused(running, query)
            await refused(running, query, {"Last-Event-ID": "0"})


async def test_at_the_end_of_its_time_its_stream_ends_and_cannot_come_back(dsn: str) -> None:
    async with run_server(with_tokens(dsn, ticket_resume=3)) as running:
        query = await take(running, await make_key(running))
        async with reading(running.url, query) as reader:
            await reader.until("synced")
            last = reader.last_id or ""
            async with reading(running.url, query, headers={"Last-Event-ID": last}) as again:
                await again.until("synced")
                # A return prolongs nothing: both end at the same time.
                assert await farewell(reader) == await farewell(again) == "expired"
        await refused(running, query, {"Last-Event-ID": last})


async def test_a_ticket_ends_with_the_token_that_asked_for_it(public: Running) -> None:
    credential = token(exp=int(time.time()) + 3)
    used, unused = await take(public, credential), await take(public, credential)
    async with reading(public.url, used) as reader:
        await reader.until("synced")
        assert await farewell(reader) == "expired"
        last = reader.last_id or ""
    # Else who comes back at once, again and again, would read on for as long as tickets do.
    await refused(public, used, {"Last-Event-ID": last})
    await refused(public, unused)


@pytest.mark.parametrize("kind", ["key", "subject", "token"])
async def test_a_revocation_of_what_asked_for_it_ends_its_stream_and_the_ticket(public: Running, kind: str) -> None:
    key = await make_key(public)
    credential = key if kind == "key" else token(jti="7")
    used, unused = await take(public, credential), await take(public, credential)
    async with reading(public.url, used) as reader:
        await reader.until("synced")
        if kind == "key":
            await public.service.access.revoke_key(key.id)
        else:
            await public.service.access.revoke(kind, "alice" if kind == "subject" else "7")
        assert await farewell(reader) == "revoked"
        await refused(public, used, {"Last-Event-ID": reader.last_id or ""})
    await refused(public, unused)


async def test_signing_out_ends_the_tickets_that_the_session_asked_for(public: Running) -> None:
    async with asking(public, await make_key(public)) as client:
        cookie = {"Cookie": f"feed_session={(await client.post('/v1/session')).cookies['feed_session']}"}
    async with asking(public) as client:
        queries = [urlsplit((await client.post("/v1/tickets", headers=cookie)).json()["url"]).query for _ in range(2)]
        async with reading(public.url, f"?{queries[0]}") as reader:
            await reader.until("synced")
            assert (await client.delete("/v1/session", headers=cookie)).status_code == 204
            assert await farewell(reader) == "revoked"
        await refused(public, f"?{queries[1]}")


async def test_of_those_who_race_for_one_ticket_exactly_one_gets_it(public: Running, dsn: str) -> None:
    async with run_server(with_tokens(dsn, **BEHIND_A_PROXY)) as node:
        for _ in range(5):
            query = await take(public, await make_key(public))
            async with AsyncExitStack() as stack:

                async def opened(url: str, stack: AsyncExitStack = stack, query: str = query) -> httpx.Response:
                    client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=60))
                    response: httpx.Response = await stack.enter_async_context(
                        client.stream("GET", f"{url}/v1/jobs/stream{query}")
                    )
                    return response

                answers = await asyncio.gather(*(opened(url) for url in [public.url, node.url] * 4))
                assert sorted(answer.status_code for answer in answers) == [200] + [401] * 7
                winner = next(answer for answer in answers if answer.status_code == 200)
                await Reader(winner).until("synced")


async def test_streams_by_ticket_count_as_streams_of_the_key_that_asked(public: Running) -> None:
    key = await make_key(public, max_streams=1)
    first, second = await take(public, key), await take(public, key)
    async with reading(public.url, first) as reader:
        await reader.until("synced")
        async with reading(public.url, second) as other:
            assert await farewell(other) == "full"
        async with reading(public.url, headers=bearer(key)) as other:
            assert await farewell(other) == "full"


async def test_a_stream_that_was_told_to_come_back_may(public: Running) -> None:
    """The first use found the service full: the browser comes back by itself, with the last id, if it was given one."""
    key = await make_key(public, max_streams=1)
    query = await take(public, key)
    async with reading(public.url, headers=bearer(key)) as reader:
        await reader.until("synced")
        async with reading(public.url, query) as other:
            assert await farewell(other) == "full"
            last = other.last_id
    await until(lambda: not public.service.streams)
    async with reading(public.url, query, headers={} if last is None else {"Last-Event-ID": last}) as reader:
        await reader.until("synced")


FROM_THE_PAST = ("", "&from=earliest", "&since=1h")


@pytest.mark.parametrize("start", FROM_THE_PAST)
async def test_a_stream_that_is_refused_for_its_rate_does_not_use_its_ticket_up(dsn: str, start: str) -> None:
    settings = with_tokens(dsn, limits_exempt=(), stream_rate="1/2 seconds", **BEHIND_A_PROXY)
    async with run_server(settings) as running:
        await post(running, "Acme")
        query = await take(running, await make_key(running)) + start
        first = await take(running, await make_key(running))
        async with reading(running.url, first, headers=at("203.0.113.9")) as reader:
            await reader.until("synced")
        async with reading(running.url, query, headers=at("203.0.113.9")) as reader:
            assert await farewell(reader) == "rate"

        async def opened() -> bool:
            """Come back as a browser does: with the last id only if there was one."""
            last = {} if reader.last_id is None else {"Last-Event-ID": reader.last_id}
            async with reading(running.url, query, headers=at("203.0.113.9") | last) as again:
                return (await again.frame() or Frame()).event != "goodbye"

        await until(opened)


@pytest.mark.parametrize("start", FROM_THE_PAST)
async def test_a_stream_that_finds_no_place_does_not_use_its_ticket_up(public: Running, start: str) -> None:
    key = await make_key(public, max_streams=1)
    query = await take(public, key) + start
    async with reading(public.url, headers=bearer(key)) as reader:
        await reader.until("synced")
        for _ in range(2):
            async with reading(public.url, query) as other:
                assert await farewell(other) == "full"
    await until(lambda: not public.service.streams)
    async with reading(public.url, query) as reader:
        await reader.until("synced")
    await refused(public, query)


@pytest.mark.parametrize("wire", [True, False])
async def test_a_stream_that_ends_before_it_has_begun_gives_its_ticket_back(
    dsn: str, wire: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_server(with_tokens(dsn, wire=wire)) as running:
        query = f"{await take(running, await make_key(running))}&since=1h"

        async def unavailable(_: Any) -> int:
            raise DatabaseUnavailable("the test says so")

        with monkeypatch.context() as patch:
            patch.setattr(running.service.sources.history.reader, "position_before", unavailable)
            async with reading(running.url, query) as reader:
                assert await farewell(reader) == "unavailable"
        database = await asyncpg.connect(dsn)
        try:
            await until(lambda: database.fetchval("SELECT redeemed_at IS NULL FROM feed.ticket"))
        finally:
            await database.close()
        async with reading(running.url, query) as reader:
            await reader.until("synced")
        await refused(running, query)


@pytest.mark.parametrize("limit", ["rate", "full"])
async def test_a_refused_ticket_stays_good_for_as_long_as_a_new_one(dsn: str, limit: str) -> None:
    """Its client is told to come back in up to `retry_busy`, and may be refused several times."""
    more = {"stream_rate": "1/hour"} if limit == "rate" else {"max_streams": 1}
    async with run_server(with_tokens(dsn, limits_exempt=(), **BEHIND_A_PROXY, **more)) as running:
        first, query = [await take(running, await make_key(running)) for _ in range(2)]
        database = await asyncpg.connect(dsn)
        try:
            async with reading(running.url, first) as reader:
                await reader.until("synced")
                before = await database.fetchval("SELECT max(expires_at) FROM feed.ticket WHERE redeemed_at IS NULL")
                async with reading(running.url, query) as other:
                    assert await farewell(other) == limit
                after = "SELECT max(expires_at) > $1 FROM feed.ticket WHERE redeemed_at IS NULL"
                await until(lambda: database.fetchval(after, before))
        finally:
            await database.close()


async def test_a_ticket_of_a_local_reader_is_good_where_everything_is_open(server: Running) -> None:
    async with asking(server) as client:
        url = (await client.post("/v1/tickets", json={"company": ["acme"]})).json()["url"]
    async with reading(server.url, f"?{urlsplit(url).query}") as reader:
        await reader.until("synced")
