"""Ends before their time: what is revoked or kicked ends in every process on the database, whatever opened it."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import httpx
import pytest

from feed.access.grant import Scope
from feed.access.key import new_key
from feed.database.access import AccessStore
from feed.database.log import Log
from feed.http.gate import Gate
from feed.model.event import Event
from tests.conftest import Running, run_server
from tests.processes import ROOT, Curl, ServiceProcess, curling, serving
from tests.reader import Reader, reading
from tests.server.credentials import (
    SECRET,
    asking,
    bearer,
    check_denied,
    farewell,
    guarded,
    make_key,
    token,
    with_tokens,
)
from tests.server.draining import connections
from tests.waiting import until

PUBLIC = ("--host", "0.0.0.0")
STREAM = "/v1/jobs/stream"


async def feed(dsn: str, *arguments: str) -> str:
    """Run a command of `feed` to its end; what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "feed", *arguments, cwd=ROOT, env=os.environ | {"DATABASE_URL": dsn}, stdout=PIPE,
        stderr=PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode().strip()


async def goodbye(curl: Curl) -> str:
    """Why a curl's stream ends; it ends well."""
    frames, code = await curl.rest()
    assert code == 0
    assert frames[-1].event == "goodbye"
    reason: str = frames[-1].data["reason"]
    return reason


async def spread(service: ServiceProcess, stack: AsyncExitStack, header: str) -> list[Curl]:
    """Live curls with a credential, at least one in each worker."""
    found: dict[int, Curl] = {}
    workers = service.workers
    curls = []
    while len(found) < len(workers):
        before = {pid: connections(pid) for pid in workers}
        curl = await stack.enter_async_context(curling(f"{service.url}{STREAM}", "-H", header))
        await curl.until("synced")
        curls.append(curl)
        taken = [pid for pid in workers if connections(pid) > before[pid]]
        if len(taken) == 1:  # else somebody's connection to the database has come in between
            found.setdefault(taken[0], curl)
    return curls


async def test_a_revoked_key_ends_its_streams_on_every_node_and_no_others(dsn: str) -> None:
    async with run_server(guarded(dsn)) as one, run_server(guarded(dsn)) as other, AsyncExitStack() as stack:
        key, spared = await make_key(one), await make_key(one)
        theirs: list[Reader] = []
        for node in (one, other):
            for http2 in (False, True):
                theirs.append(await stack.enter_async_context(reading(node.url, headers=bearer(key), http2=http2)))
        others = [await stack.enter_async_context(reading(node.url, headers=bearer(spared))) for node in (one, other)]
        for reader in (*theirs, *others):
            await reader.until("synced")
        await one.service.access.revoke_key(key.id)
        for reader in theirs:
            assert await farewell(reader) == "revoked"
        assert [len(node.service.streams) for node in (one, other)] == [1, 1]
        for node in (one, other):
            async with asking(node, key) as client:
                check_denied(await client.get("/v1/jobs"))
                check_denied(await client.get(STREAM))
            async with asking(node, spared) as client:
                assert (await client.get("/v1/jobs")).status_code == 200


async def test_what_is_ended_once_has_ended_in_every_worker(dsn: str) -> None:
    async with (
        serving(dsn, flags=(*PUBLIC, "--workers", "2"), jwt_algorithm="HS256", jwt_key=SECRET) as service,
        asyncpg.create_pool(dsn, min_size=1, max_size=1, server_settings={"search_path": "feed"}) as pool,
        httpx.AsyncClient(base_url=service.url, trust_env=False, headers={"Connection": "close"}) as client,
        AsyncExitStack() as stack,
    ):
        key, spared, whole = new_key(), new_key(), token(jti="7")
        for one in (key, spared):
            await AccessStore(pool).add_key(one, Scope.READ)
        cookie = f"feed_session={(await client.post('/v1/session', headers=bearer(spared))).cookies['feed_session']}"
        client.cookies.clear()
        of_key, of_token, of_session, others = [
            await spread(service, stack, header)
            for header in (
                f"Authorization: Bearer {key.text}", f"Authorization: Bearer {whole}", f"Cookie: {cookie}",
                f"Authorization: Bearer {spared.text}",
            )
        ]  # fmt: skip
        await asyncio.gather(
            feed(dsn, "key", "revoke", key.text),  # the whole key will do: its holder has nothing else at hand
            feed(dsn, "key", "revoke", "--token", "7"),
            client.delete("/v1/session", headers={"Cookie": cookie}),
        )
        for curls in (of_key, of_token, of_session):
            assert {await goodbye(curl) for curl in curls} == {"revoked"}
        for _ in range(6):  # whichever worker answers
            for headers in (bearer(key), bearer(whole), {"Cookie": cookie}):
                check_denied(await client.get("/v1/jobs", headers=headers))
            assert (await client.get("/v1/jobs", headers=bearer(spared))).status_code == 200
        await feed(dsn, "key", "revoke", spared.id)
        assert {await goodbye(curl) for curl in others} == {"revoked"}


async def test_a_stream_that_is_kicked_ends_wherever_it_is_and_alone(dsn: str) -> None:
    async with run_server(guarded(dsn)) as one, run_server(guarded(dsn)) as other:
        key = await make_key(one)
        async with (
            reading(other.url, headers=bearer(key)) as first,
            reading(other.url, headers=bearer(key)) as second,
            asking(one, await make_key(one, "admin")) as admin,
        ):
            for reader in (first, second):
                await reader.until("synced")
            ids = [stream.id for stream in other.service.streams]
            assert len(set(ids)) == 2

            async def known() -> bool:  # processes learn of each other within a moment
                listed = (await admin.get("/v1/subscribers")).json()["subscribers"]
                return {one["id"] for one in listed} == set(ids)

            await until(known, 30)
            async with asking(one, key) as reader_of_one:
                check_denied(await reader_of_one.delete(f"/v1/subscribers/{ids[0]}"), 403)
            assert (await admin.delete(f"/v1/subscribers/{ids[0]}")).status_code in (200, 202)
            assert await farewell(first) == "kicked"
            async with reading(other.url, headers=bearer(key)) as again:  # a kick is no revocation
                await again.until("synced")
            assert ids[1] in [stream.id for stream in other.service.streams]
            await one.service.access.revoke("stream", ids[1], 60)  # as a process does that cannot be asked
            assert await farewell(second) == "kicked"


async def test_an_expired_key_ends_its_streams_on_every_node(dsn: str) -> None:
    async with run_server(guarded(dsn)) as one, run_server(guarded(dsn)) as other:
        key = await make_key(one, seconds=3)
        async with reading(one.url, headers=bearer(key)) as here, reading(other.url, headers=bearer(key)) as there:
            for reader in (here, there):
                await reader.until("synced")
            assert await farewell(here) == await farewell(there) == "expired"


async def test_a_replay_that_is_under_way_ends_too(
    dsn: str, database: "asyncpg.Connection[asyncpg.Record]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is still reading history has not joined the live set: it must be found all the same."""
    async with run_server(guarded(dsn, ring_events=3, history_page=2)) as running:
        key = await make_key(running)
        await database.execute(
            "INSERT INTO job (title, company, url) SELECT 'Job ' || n, 'A', 'https://a.example' "
            "FROM generate_series(1, 10) n"
        )
        await until(lambda: running.service.hub.head == 10)
        asked, answer = asyncio.Event(), asyncio.Event()
        read = Log.read

        async def held(log: Log, after: int, upto: int) -> list[Event]:
            asked.set()
            await answer.wait()
            return await read(log, after, upto)

        monkeypatch.setattr(Log, "read", held)
        try:
            async with reading(running.url, "?from=earliest", headers=bearer(key)) as reader:
                await asyncio.wait_for(asked.wait(), 30)
                await running.service.access.revoke_key(key.id)
                assert await farewell(reader) == "revoked"
        finally:
            answer.set()


async def test_a_revocation_between_being_let_in_and_opening_is_not_lost(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_server(guarded(dsn)) as running:
        key = await make_key(running)
        admit = Gate.admit_stream

        async def slowly(gate: Gate, *arguments: Any) -> Any:
            caller = await admit(gate, *arguments)
            await running.service.access.revoke_key(key.id)
            await running.service.revocations.look()
            return caller

        monkeypatch.setattr(Gate, "admit_stream", slowly)
        async with reading(running.url, headers=bearer(key)) as reader:
            assert await farewell(reader) == "revoked"


async def test_what_was_revoked_before_a_process_began_is_known_to_it(dsn: str) -> None:
    of_subject, by_id = token(), token(sub="bob", jti="7")
    async with run_server(with_tokens(dsn)) as running:
        await running.service.access.revoke("subject", "alice")
        await running.service.access.revoke("token", "7")
        key = await make_key(running)
        await running.service.access.revoke_key(key.id)
    async with run_server(with_tokens(dsn)) as later:
        for credential in (of_subject, by_id, key):
            async with asking(later, credential) as client:

                async def known(client: httpx.AsyncClient = client) -> bool:
                    return (await client.get("/v1/jobs")).status_code != 503

                await until(known)
                check_denied(await client.get("/v1/jobs"))
        async with asking(later, token(sub="bob", jti="8")) as client:
            assert (await client.get("/v1/jobs")).status_code == 200


async def test_a_revocation_that_commits_late_is_heard_all_the_same(dsn: str) -> None:
    """Its time is from before what the processes have seen by then."""
    async with run_server(guarded(dsn)) as running:
        key, other = await make_key(running), await make_key(running)
        slow = await asyncpg.connect(dsn, server_settings={"search_path": "feed"})
        try:
            async with reading(running.url, headers=bearer(key)) as reader, slow.transaction():
                await reader.until("synced")
                await slow.execute("INSERT INTO revocation (kind, subject) VALUES ('key', $1)", key.id)
                async with reading(running.url, headers=bearer(other)) as heard:
                    await heard.until("synced")
                    await running.service.access.revoke_key(other.id)
                    assert await farewell(heard) == "revoked"  # what was made later has been heard
                await slow.execute("COMMIT; BEGIN")
                assert await farewell(reader) == "revoked"
        finally:
            await slow.close()


async def test_a_key_is_revoked_once_and_stays_so(server: Running) -> None:
    store: AccessStore = server.service.access
    key = new_key()
    await store.add_key(key, Scope.READ)
    await store.revoke_key(key.id)
    first = await store.key(key.id)
    await store.revoke_key(key.id)
    assert await store.key(key.id) == first
    assert first
    assert first.revoked_at is not None
