"""Sessions: a cookie that does what its credential does, for as long, and no page of another site can make or use one."""

import time
from collections.abc import AsyncIterator
from datetime import datetime
from http.cookies import SimpleCookie

import asyncpg
import httpx
import pytest

from feed.access.key import Key
from feed.serving.certificate import self_signed
from tests.clones import Clones
from tests.conftest import Running, make_settings, run_server
from tests.processes import Certificate
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
from tests.tokens import by_hand
from tests.waiting import until

STREAM = "/v1/jobs/stream"
PAGE = "https://jobs.example"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for this machine."""
    return self_signed(tmp_path_factory.mktemp("tls"), "127.0.0.1")


@pytest.fixture
async def public(dsn: str) -> AsyncIterator[Running]:
    """A service that asks for keys or tokens."""
    async with run_server(with_tokens(dsn, jwt_leeway=0)) as running:
        yield running


async def sign_in(running: Running, credential: Key | str) -> dict[str, str]:
    """The header with the cookie of a new session."""
    async with asking(running, credential) as client:
        answer = await client.post("/v1/session")
        assert answer.status_code == 200, answer.text
        return {"Cookie": f"feed_session={answer.cookies['feed_session']}"}


async def test_a_credential_is_exchanged_for_a_cookie_that_scripts_cannot_read(public: Running) -> None:
    async with asking(public, await make_key(public, "write", wanted="company=acme", seconds=3600)) as client:
        answer = await client.post("/v1/session")
    assert answer.status_code == 200
    said = answer.json()
    assert set(said) == {"name", "scopes", "filter", "expires_at"}
    assert said["scopes"] == ["read", "write"]
    assert said["filter"] == "company=acme"
    cookie = SimpleCookie(answer.headers["set-cookie"])["feed_session"]
    assert cookie["httponly"] is True
    assert cookie["samesite"].lower() == "lax"
    assert cookie["path"] == "/"
    assert cookie["domain"] == ""
    assert not cookie["secure"]  # it would never be sent back over plain HTTP
    assert 0 < int(cookie["max-age"]) <= 3600
    assert answer.headers["cache-control"] == "no-store"


async def test_over_tls_the_cookie_is_secure(dsn: str, certificate: Certificate) -> None:
    settings = guarded(dsn, certfile=certificate[0], keyfile=certificate[1])
    async with run_server(settings) as running:
        async with asking(running, await make_key(running), verify=False) as client:
            answer = await client.post("/v1/session")
        assert SimpleCookie(answer.headers["set-cookie"])["feed_session"]["secure"] is True


@pytest.mark.parametrize("trusted", [True, False])
async def test_behind_a_trusted_proxy_with_tls_the_cookie_is_secure_too(dsn: str, trusted: bool) -> None:
    settings = guarded(dsn, trusted_proxies="127.0.0.0/8" if trusted else "10.0.0.0/8")
    async with run_server(settings) as running, asking(running, await make_key(running)) as client:
        for headers in (
            {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"},
            {"X-Forwarded-For": "203.0.113.9, 127.0.0.1", "X-Forwarded-Proto": "https, http"},
        ):
            answer = await client.post("/v1/session", headers=headers)
            assert bool(SimpleCookie(answer.headers["set-cookie"])["feed_session"]["secure"]) is trusted


@pytest.mark.parametrize("http2", [False, True])
async def test_the_cookie_opens_streams_lists_and_writes_as_its_credential_does(public: Running, http2: bool) -> None:
    async with httpx.AsyncClient(base_url=public.url, trust_env=False, http1=not http2, http2=http2) as client:
        writer, reader = await make_key(public, "write"), await make_key(public, wanted="company=acme", max_streams=1)
        writing, limited = await sign_in(public, writer), await sign_in(public, reader)
        async with reading(public.url, headers=limited, http2=http2) as stream:
            await stream.until("synced")
            for company in ("Other", "Acme"):
                made = await client.post("/v1/jobs", json=JOB | {"company": company}, headers=writing)
                assert made.status_code == 201
            assert [frame.data["company"] for frame in await stream.jobs(1)] == ["Acme"]
            async with reading(public.url, headers=limited, http2=http2) as second:
                assert await farewell(second) == "full"
            async with reading(public.url, headers=bearer(reader), http2=http2) as third:
                assert await farewell(third) == "full"  # the session's streams are the key's
        assert len((await client.get("/v1/jobs", headers=limited)).json()["jobs"]) == 1
        assert len((await client.get("/v1/jobs", headers=writing)).json()["jobs"]) == 2
        check_denied(await client.post("/v1/jobs", json=JOB, headers=limited), 403)
        check_denied(await client.get("/v1/jobs/1", headers=limited), 404)
        assert (await client.get("/v1/session", headers=limited)).json() | {"expires_at": ""} == {
            "name": f"key:{reader.id}", "scopes": ["read"], "filter": "company=acme", "expires_at": "",
        }  # fmt: skip


async def test_a_session_never_outlives_its_credential(public: Running) -> None:
    now = time.time()
    for credential, longest in (
        (await make_key(public, seconds=100), 100), (token(exp=int(now) + 200), 200), (await make_key(public), 12 * 3600),
    ):  # fmt: skip
        cookie = await sign_in(public, credential)
        async with asking(public) as client:
            first = (await client.get("/v1/session", headers=cookie)).json()["expires_at"]
            left = datetime.fromisoformat(first).timestamp() - now
            assert longest - 60 < left < longest + 60
            # A session that is renewed by itself ends when the first one would have.
            again = await client.post("/v1/session", headers=cookie)
            renewed = {"Cookie": f"feed_session={again.cookies['feed_session']}"}
            assert (await client.get("/v1/session", headers=renewed)).json()["expires_at"] == first


@pytest.mark.parametrize("kind", ["key", "token"])
async def test_streams_and_cookie_end_when_the_credential_expires(public: Running, kind: str) -> None:
    credential = token(exp=int(time.time()) + 3) if kind == "token" else await make_key(public, seconds=3)
    cookie = await sign_in(public, credential)
    async with reading(public.url, headers=cookie) as reader:
        await reader.until("synced")
        assert await farewell(reader) == "expired"
    async with asking(public) as client:
        check_denied(await client.get("/v1/session", headers=cookie))
        check_denied(await client.get(STREAM, headers=cookie))


async def test_a_session_ends_when_it_is_as_old_as_sessions_get(dsn: str) -> None:
    async with run_server(guarded(dsn, session_age=2)) as running:
        key = await make_key(running)
        cookie = await sign_in(running, key)
        async with (
            reading(running.url, headers=cookie) as reader,
            reading(running.url, headers=bearer(key)) as other,
            asking(running) as client,
        ):
            for stream in (reader, other):
                await stream.until("synced")
            assert await farewell(reader) == "expired"
            check_denied(await client.get("/v1/jobs", headers=cookie))
            assert (await client.get("/v1/jobs", headers=bearer(key))).status_code == 200
            assert len(running.service.streams) == 1


async def test_signing_out_ends_the_session_in_every_process(public: Running, dsn: str) -> None:
    key = await make_key(public)
    mine, others = await sign_in(public, key), await sign_in(public, key)
    async with (
        run_server(with_tokens(dsn)) as node,
        reading(public.url, headers=mine) as here,
        reading(node.url, headers=mine, http2=True) as there,
        reading(node.url, headers=others) as spared,
        reading(node.url, headers=bearer(key)) as unconcerned,
        asking(public) as client,
        asking(node) as elsewhere,
    ):
        for reader in (here, there, spared, unconcerned):
            await reader.until("synced")
        answer = await client.delete("/v1/session", headers=mine)
        assert answer.status_code == 204
        gone = SimpleCookie(answer.headers["set-cookie"])["feed_session"]
        assert gone.value == ""
        assert gone["max-age"] == "0"
        assert await farewell(here) == await farewell(there) == "revoked"
        for one in (client, elsewhere):
            check_denied(await one.get("/v1/session", headers=mine))
            check_denied(await one.get(STREAM, headers=mine))
            check_denied(await one.post("/v1/tickets", headers=mine))
            check_denied(await one.post("/v1/session", headers=mine))
            assert (await one.get("/v1/session", headers=others)).status_code == 200
        assert len(node.service.streams) == 2
        # A process that starts later knows it too.
        async with run_server(with_tokens(dsn)) as late, asking(late) as client_of_late:

            async def known() -> bool:
                return (await client_of_late.get("/v1/session", headers=mine)).status_code != 503

            await until(known)
            check_denied(await client_of_late.get("/v1/session", headers=mine))
            assert (await client_of_late.get("/v1/session", headers=others)).status_code == 200


async def test_signing_out_of_a_renewed_session_ends_the_old_cookie_too(public: Running) -> None:
    mine = await sign_in(public, await make_key(public))
    async with asking(public) as client:
        again = await client.post("/v1/session", headers=mine)
        renewed = {"Cookie": f"feed_session={again.cookies['feed_session']}"}
        client.cookies.clear()
        assert (await client.delete("/v1/session", headers=renewed)).status_code == 204

        async def ended() -> bool:
            return (await client.get("/v1/session", headers=mine)).status_code == 401

        await until(ended)


async def test_signing_out_without_a_session_is_no_error(public: Running) -> None:
    async with asking(public) as client:
        for cookie in ({}, {"Cookie": "feed_session=nonsense"}, {"Cookie": "feed_session="}):
            assert (await client.delete("/v1/session", headers=cookie)).status_code == 204


@pytest.mark.parametrize("kind", ["key", "subject", "token"])
async def test_a_session_ends_with_a_revocation_of_what_it_was_made_from(public: Running, kind: str) -> None:
    key = await make_key(public)
    cookie = await sign_in(public, key if kind == "key" else token(jti="7"))
    async with reading(public.url, headers=cookie) as reader, asking(public) as client:
        await reader.until("synced")
        if kind == "key":
            await public.service.access.revoke_key(key.id)
        else:
            await public.service.access.revoke(kind, "alice" if kind == "subject" else "7")
        assert await farewell(reader) == "revoked"
        check_denied(await client.get("/v1/session", headers=cookie))
        check_denied(await client.get(STREAM, headers=cookie))
        check_denied(await client.post("/v1/session", headers=cookie))


async def test_a_cookie_that_was_tampered_with_is_refused(public: Running) -> None:
    cookie = (await sign_in(public, await make_key(public)))["Cookie"].partition("=")[2]
    head, body, signature = cookie.split(".")
    far = int(time.time()) + 3600
    grant = {"name": "key:x", "scopes": ["admin"], "filter": "", "issued_at": None, "expires_at": None,
             "max_streams": None, "session": "x", "token": None}  # fmt: skip
    claims = {"aud": "feed:session", "iat": 1, "exp": far, "grant": grant}
    async with asking(public) as client:
        for value in (
            f"{head}.{body}.{signature[:-4]}", f"{head}.{body}.", f"{head}.{body[:-3]}AAA.{signature}", "x", "", "..",
            f"{head}.{body}", cookie.upper(), by_hand({"alg": "none"}, claims),
            by_hand({"alg": "HS256"}, claims, b"secret"), by_hand({"alg": "HS256"}, claims, b""),
            token(scope="admin"),  # a good token is no session
        ):  # fmt: skip
            sent = {"Cookie": f"feed_session={value}"}
            check_denied(await client.get("/v1/jobs", headers=sent))
            check_denied(await client.get(STREAM, headers=sent))
            check_denied(await client.post("/v1/jobs", json=JOB, headers=sent))
        check_denied(await client.get("/v1/jobs", headers=bearer(cookie)))  # a session is no token either
        assert (await client.get("/v1/jobs", headers={"Cookie": f"a=b; feed_session={cookie}"})).status_code == 200


async def test_a_session_is_good_for_the_feed_that_made_it_only(public: Running, clones: Clones) -> None:
    cookie = await sign_in(public, token(scope="admin"))
    async with clones.one() as other:
        # Clones of one template have one secret; databases that were made have each their own.
        admin = await asyncpg.connect(other, server_settings={"search_path": "feed"})
        await admin.execute("UPDATE secret SET session = sha256('of another feed')")
        await admin.close()
        async with run_server(with_tokens(other)) as stranger, asking(stranger) as client:
            for _ in range(2):
                check_denied(await client.get("/v1/jobs", headers=cookie))
            theirs = await sign_in(stranger, token(scope="admin"))
            assert (await client.get("/v1/jobs", headers=theirs)).status_code == 200


async def test_an_old_cookie_is_no_worse_than_none_where_reading_is_open(dsn: str) -> None:
    async with run_server(make_settings(dsn)) as running, asking(running) as client:
        sent = {"Cookie": "feed_session=old"}
        assert (await client.get("/v1/jobs", headers=sent)).status_code == 200
        async with reading(running.url, headers=sent) as reader:
            await reader.until("synced")


async def test_the_header_wins_over_the_cookie(public: Running) -> None:
    cookie = await sign_in(public, await make_key(public, "write"))
    async with asking(public) as client:
        check_denied(await client.get("/v1/jobs", headers=cookie | bearer("nonsense")))
        reader = await make_key(public)
        answer = await client.get("/v1/session", headers=cookie | bearer(reader))
        assert answer.json()["name"] == f"key:{reader.id}"


async def test_pages_of_a_named_origin_are_answered_with_credentials_and_others_are_not(dsn: str) -> None:
    async with (
        run_server(guarded(dsn, cors_origins=f"{PAGE},https://other.example:8443")) as running,
        asking(running, await make_key(running)) as client,
    ):
        for origin in (PAGE, "https://other.example:8443"):
            for address in ("/v1/jobs", "/v1/session"):
                answer = await client.get(address, headers={"Origin": origin})
                assert answer.headers["access-control-allow-origin"] == origin
                assert answer.headers["access-control-allow-credentials"] == "true"
                assert "Origin" in answer.headers["vary"]
            async with reading(running.url, headers=dict(client.headers) | {"Origin": origin}) as reader:
                assert reader.response.headers["access-control-allow-origin"] == origin
                assert reader.response.headers["access-control-allow-credentials"] == "true"
            for address in ("/v1/session", "/v1/tickets"):
                answer = await client.post(address, headers={"Origin": origin})
                assert answer.is_success
                assert answer.headers["access-control-allow-origin"] == origin
            preflight = {"Origin": origin, "Access-Control-Request-Method": "POST",
                         "Access-Control-Request-Headers": "authorization"}  # fmt: skip
            answer = await client.options("/v1/session", headers=preflight)
            assert answer.status_code == 204
            assert answer.headers["access-control-allow-origin"] == origin
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert "POST" in answer.headers["access-control-allow-methods"]
            assert "Authorization" in answer.headers["access-control-allow-headers"]
        for origin in (
            "https://evil.example", "http://jobs.example", "https://jobs.example:444", "https://jobs.example.evil.example",
            "https://sub.jobs.example", "null", "",
        ):  # fmt: skip
            preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            for answer in (
                await client.get("/v1/jobs", headers={"Origin": origin}),
                await client.get("/v1/nowhere", headers={"Origin": origin}),
                await client.get("/v1/jobs", headers={"Origin": origin} | bearer("nonsense")),
                await client.options("/v1/session", headers=preflight),
            ):
                allowed = [name for name in answer.headers if name.startswith("access-control-")]
                assert not allowed, (origin, answer.status_code)
                assert "Origin" in answer.headers["vary"]
            async with reading(running.url, headers=dict(client.headers) | {"Origin": origin}) as reader:
                assert "access-control-allow-origin" not in reader.response.headers


async def test_where_any_origin_may_read_none_is_answered_with_credentials(dsn: str) -> None:
    async with run_server(guarded(dsn)) as running, asking(running, await make_key(running)) as client:
        preflight = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        answer = await client.options("/v1/session", headers=preflight)
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
        for headers in ({"Origin": PAGE}, {"Origin": PAGE, "Cookie": "feed_session=x"}):
            answer = await client.get("/v1/jobs", headers=headers)
            assert answer.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in answer.headers
            async with reading(running.url, headers=dict(client.headers) | headers) as reader:
                assert reader.response.headers["access-control-allow-origin"] == "*"
                assert "access-control-allow-credentials" not in reader.response.headers


async def test_beside_any_origin_one_that_is_named_is_answered_with_credentials(dsn: str) -> None:
    settings = guarded(dsn, cors_origins=f"*,{PAGE}")
    async with run_server(settings) as running, asking(running, await make_key(running)) as client:
        for origin, allowed, credentials in (
            (PAGE, PAGE, "true"), ("https://evil.example", "*", None), ("null", "*", None),
        ):  # fmt: skip
            preflight = {"Origin": origin, "Access-Control-Request-Method": "GET"}
            for answer in (
                await client.get("/v1/jobs", headers={"Origin": origin}),
                await client.options("/v1/jobs", headers=preflight),
            ):
                assert answer.headers["access-control-allow-origin"] == allowed
                assert answer.headers.get("access-control-allow-credentials") == credentials
                assert "Origin" in answer.headers["vary"]


async def test_a_page_may_read_the_errors_too(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with run_server(guarded(dsn, cors_origins=PAGE)) as running, asking(running) as client:

        async def fails(*_: object, **__: object) -> None:
            raise RuntimeError("the test says so")

        monkeypatch.setattr(running.service.store, "list", fails)
        key = bearer(await make_key(running))
        for status, path, headers in ((401, "/v1/jobs", {}), (404, "/nowhere", {}), (500, "/v1/jobs", key)):
            answer = await client.get(path, headers=headers | {"Origin": PAGE})
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == PAGE
            assert answer.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize("named", ["*", PAGE])
async def test_a_page_of_an_origin_that_is_not_named_cannot_sign_in_or_out_or_take_a_ticket(
    dsn: str, named: str
) -> None:
    async with run_server(guarded(dsn, cors_origins=named)) as running:
        key = await make_key(running)
        cookie = await sign_in(running, key)
        async with asking(running, key) as client:
            for headers in (
                {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "same-site"},
            ):  # fmt: skip
                for extra in ({}, cookie):
                    check_denied(await client.post("/v1/session", headers=headers | extra), 403)
                    check_denied(await client.post("/v1/tickets", headers=headers | extra), 403)
                    check_denied(await client.delete("/v1/session", headers=headers | extra), 403)
            assert (await client.get("/v1/session", headers=cookie)).status_code == 200
            own = {"Origin": running.url, "Sec-Fetch-Site": "same-origin"}
            assert (await client.post("/v1/session", headers=own)).status_code == 200
            assert (await client.post("/v1/tickets", headers=own)).status_code == 201


async def test_a_page_of_another_site_cannot_write_with_a_readers_cookie(public: Running) -> None:
    cookie = await sign_in(public, await make_key(public, "write"))
    async with asking(public) as client:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            check_denied(await client.post("/v1/jobs", json=JOB, headers=headers | cookie), 403)
            check_denied(await client.put("/v1/jobs/a/b", json=JOB, headers=headers | cookie), 403)
            check_denied(await client.post("/v1/jobs/1/close", headers=headers | cookie), 403)
    assert public.service.hub.head == 0
