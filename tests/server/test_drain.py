"""The drain on real processes: every stream ends with a farewell, the process with 0, and nobody waits for ever."""

import asyncio
import contextlib
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import h2.config
import h2.connection
import httpx
import pytest

from feed.serving.certificate import self_signed
from feed.settings.settings import Settings
from tests.conftest import run_server
from tests.processes import Certificate, Curl, ServiceProcess, curling, serving
from tests.reader import reading
from tests.server.draining import STREAM, connections, farewell, protocols
from tests.server.postings import BIG, INSERT, MANY
from tests.waiting import until

TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for this machine."""
    return self_signed(tmp_path_factory.mktemp("tls"), "127.0.0.1")


@asynccontextmanager
async def watched(
    service: ServiceProcess, database: "asyncpg.Connection[Any]", each: int = 2
) -> AsyncIterator[list[Curl]]:
    """`each` curls over every protocol; all are live and have seen one posting."""
    async with AsyncExitStack() as stack:
        curls = [
            await stack.enter_async_context(curling(service.url + STREAM, flag))
            for flag in protocols(service.url)
            for _ in range(each)
        ]
        await asyncio.gather(*(curl.until("synced") for curl in curls))
        await database.execute(INSERT, "seen")
        await asyncio.gather(*(curl.until("posted") for curl in curls))
        yield curls


MODES = [
    # workers (None: feed serve), TLS, signal, to whom
    (None, False, TERM, "master"),
    (None, False, INT, "group"),
    (None, True, TERM, "group"),
    (0, False, TERM, "master"),
    (0, True, INT, "group"),
    (1, False, TERM, "master"),
    (1, True, TERM, "group"),
    (3, False, INT, "group"),
    (3, True, TERM, "master"),
]


@pytest.mark.parametrize(("workers", "tls", "number", "target"), MODES)
async def test_every_stream_is_told_goodbye_and_the_process_ends_with_0(
    dsn: str, settings: Settings, database: "asyncpg.Connection[Any]", certificate: Certificate,
    workers: int | None, tls: bool, number: signal.Signals, target: str,
) -> None:  # fmt: skip
    async with (
        serving(dsn, workers=workers, certificate=certificate if tls else None, drain_rate=8) as service,
        watched(service, database) as curls,
    ):
        service.signal(number, target)
        await asyncio.gather(*map(farewell, curls))
        assert await service.ended() == 0
        assert b"Traceback" not in service.said
    # What is committed while nobody serves reaches those who come back to the next process.
    await database.execute(MANY, 3)
    async with run_server(settings) as restarted:
        for curl in curls[::2]:
            assert curl.last_id
            async with reading(restarted.url, headers={"Last-Event-ID": curl.last_id}) as reader:
                assert [frame.data["title"] for frame in await reader.jobs(3)] == ["Job 1", "Job 2", "Job 3"]


async def test_a_worker_that_is_told_to_go_drains_and_leaves_the_others_alone(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with serving(dsn, workers=2) as service, AsyncExitStack() as stack:
        workers = service.workers
        curls: dict[int, list[Curl]] = {pid: [] for pid in workers}
        while not all(curls.values()):
            before = {pid: connections(pid) for pid in workers}
            curl = await stack.enter_async_context(curling(service.url + STREAM, "--http2-prior-knowledge"))
            await curl.until("synced")
            taken = next(pid for pid in workers if connections(pid) > before[pid])
            curls[taken].append(curl)
        service.signal(TERM, "worker")
        await asyncio.gather(*map(farewell, curls.pop(workers[0])))
        await database.execute(INSERT, "still here")
        for curl in curls[workers[1]]:
            assert (await curl.until("posted"))[-1].data["title"] == "still here"
        await until(lambda: service.started == 3)  # the master starts another in its place
        service.signal(TERM)
        await asyncio.gather(*map(farewell, curls[workers[1]]))
        assert await service.ended() == 0


@pytest.mark.parametrize("workers", [None, 1])
async def test_while_draining_readyz_says_so_and_new_streams_are_told_at_once(
    dsn: str, database: "asyncpg.Connection[Any]", workers: int | None
) -> None:
    # Four streams at one a second: a window of four seconds, in which everything else is still answered.
    async with (
        serving(dsn, workers=workers, drain_rate=1) as service,
        watched(service, database) as curls,
        httpx.AsyncClient(base_url=service.url, trust_env=False) as client,
    ):
        assert (await client.get("/readyz")).json()["streams"] == 4
        service.signal(TERM)

        async def draining() -> httpx.Response | None:
            answer = await client.get("/readyz")
            return answer if answer.status_code == 503 else None

        answer = await until(draining)
        assert answer.json()["ready"] is False
        assert answer.json()["draining"] is True
        assert (await client.get("/healthz")).status_code == 200
        for flag in protocols(service.url):
            async with curling(service.url + STREAM, flag) as late:
                await farewell(late)
        assert (await client.get("/readyz")).json()["streams"] > 0  # and the others' farewells are still to come
        async with asyncio.TaskGroup() as tasks:
            for curl in curls:
                tasks.create_task(farewell(curl))
        assert await service.ended() == 0


async def test_streams_are_live_until_their_own_end(dsn: str, database: "asyncpg.Connection[Any]") -> None:
    async with serving(dsn, drain_rate=1) as service, watched(service, database) as curls:
        service.signal(TERM)
        ends = [asyncio.create_task(curl.rest()) for curl in curls]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        await database.execute(INSERT, "late")
        read = await asyncio.gather(*ends)
        assert [code for _, code in read] == [0] * 4
        events = sorted([frame.event or "" for frame in frames] for frames, _ in read)
        assert events[0] == ["goodbye"]
        assert events[-1] == ["posted", "goodbye"]
        assert await service.ended() == 0


@asynccontextmanager
async def stalled(service: ServiceProcess, kind: str, path: str = STREAM) -> AsyncIterator[asyncio.StreamReader]:
    """A client that asks and takes nothing: `h1` never reads, `h2` reads and opens no window."""
    where = urlsplit(service.url)
    context = None
    if where.scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2" if kind.startswith("h2") else "http/1.1"])
    # The stream reader stops reading once it holds twice its limit.
    reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=context, limit=1024)
    discarding = None
    if kind == "h1":
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
    else:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        connection.initiate_connection()
        request = {":method": "GET", ":path": path, ":scheme": where.scheme, ":authority": where.netloc}
        connection.send_headers(1, list(request.items()), end_stream=True)
        writer.write(connection.data_to_send())
        if kind == "h2 window":
            discarding = asyncio.create_task(_discard(reader))
    await writer.drain()
    try:
        yield reader
    finally:
        if discarding is not None:
            discarding.cancel()
            await asyncio.gather(discarding, return_exceptions=True)
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _discard(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


@pytest.mark.parametrize(("workers", "tls", "number"), [(None, True, INT), (0, False, INT), (1, True, TERM)])
async def test_stalled_clients_do_not_keep_the_process_alive(
    dsn: str, database: "asyncpg.Connection[Any]", certificate: Certificate,
    workers: int | None, tls: bool, number: signal.Signals,
) -> None:  # fmt: skip
    async with serving(
        dsn, workers=workers, certificate=certificate if tls else None, drain_deadline=1.0, drain_window=0.1
    ) as service:
        async with AsyncExitStack() as stack:
            curls = await stack.enter_async_context(watched(service, database, each=1))
            for kind in ("h1", "h2", "h2 window"):
                await stack.enter_async_context(stalled(service, kind))
            async with httpx.AsyncClient(base_url=service.url, trust_env=False, verify=False) as client:

                async def all_open() -> bool:
                    return (await client.get("/readyz")).json()["streams"] == 5

                await until(all_open)
            for _ in range(15):
                await database.execute(BIG, 10)
            for curl in curls:
                for _ in range(150):
                    await curl.until("posted")
            service.signal(number, "group")
            await asyncio.gather(*map(farewell, curls))
            assert await service.ended() == 0
        assert b"Traceback" not in service.said


@pytest.mark.parametrize(
    ("workers", "tls", "kind"),
    [(None, False, "h1"), (None, False, "h2 window"), (None, True, "idle"), (0, True, "h2 window")],
)
async def test_connections_without_a_stream_do_not_keep_the_process_alive(
    dsn: str, database: "asyncpg.Connection[Any]", certificate: Certificate, workers: int | None, tls: bool, kind: str
) -> None:
    await database.execute(BIG, 200)
    async with (
        serving(dsn, workers=workers, certificate=certificate if tls else None, drain_deadline=1.0) as service,
        AsyncExitStack() as stack,
    ):
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=service.url, trust_env=False, verify=False))
        if kind != "idle":
            await stack.enter_async_context(stalled(service, kind, "/v1/jobs?limit=200"))
        assert (await client.get("/v1/jobs?limit=1")).status_code == 200
        if kind != "idle":
            await client.aclose()
        service.signal(TERM)
        assert await service.ended(20) == 0


async def test_the_end_of_one_service_leaves_another_in_the_same_process_alone(
    settings: Settings, database: "asyncpg.Connection[Any]"
) -> None:
    # sse-starlette keeps its own idea of shutdown in a global that is never reset.
    async with run_server(settings) as stays, reading(stays.url) as reader:
        await reader.until("synced")
        async with run_server(settings) as goes, reading(goes.url) as leaving:
            await leaving.until("synced")
            goes.stop.set()
            assert [frame.event for frame in await leaving.rest()] == ["goodbye"]
            await goes.ended
        async with run_server(settings) as comes, reading(comes.url) as arriving:
            await arriving.until("synced")
            await database.execute(INSERT, "on")
            assert (await reader.jobs(1))[0].data["title"] == (await arriving.jobs(1))[0].data["title"] == "on"


async def test_farewells_have_a_retry_of_their_own_each(settings: Settings) -> None:
    jittered = settings.changed(retry_min=0.001, retry_max=9.0)
    async with run_server(jittered) as running, AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(reading(running.url, http2=n % 2 == 0)) for n in range(10)]
        for reader in readers:
            await reader.until("synced")
        running.stop.set()
        told = {(await reader.rest())[-1].retry for reader in readers}
        assert len(told) > 5
        await running.ended


async def test_a_drain_without_streams_ends_at_once_and_with_0(dsn: str) -> None:
    async with serving(dsn, drain_window=60, drain_deadline=60) as service:
        service.signal(INT)
        assert await service.ended(20) == 0
