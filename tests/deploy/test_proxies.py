"""The shipped configurations of nginx, Caddy and HAProxy, in real ones in front of a real service."""

import asyncio
import socket
import ssl
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.deploy.conftest import Behind, Started
from tests.deploy.echo import echoing
from tests.deploy.fronts import HOST, Front, fronting, program
from tests.processes import curling, serving
from tests.reader import Reader
from tests.server.credentials import bearer, make_key
from tests.server.draining import STREAM, farewell
from tests.server.postings import INSERT, MANY
from tests.waiting import until

LARGE = (
    "INSERT INTO job (title, company, url, tags) SELECT 'Large ' || n, 'Acme', 'https://acme.example', "
    "array_fill(repeat('x', 100), ARRAY[40]) FROM generate_series(1, $1) n"
)
"""Events of 4 kB each."""

PROTOCOLS = pytest.mark.parametrize("http2", [True, False], ids=["h2", "h1"])


@asynccontextmanager
async def reading(front: Front, query: str = "", *, http2: bool = True, **headers: str) -> AsyncIterator[Reader]:
    """Open the stream; the client would take it compressed."""
    given = {"Accept-Encoding": "gzip, br, zstd", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with (
        front.client(http2=http2) as client,
        client.stream("GET", STREAM + query, headers=given, timeout=None) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        yield Reader(response)


async def open_streams(behind: Behind) -> int:
    """How many streams the service has, by its own word."""
    async with httpx.AsyncClient(trust_env=False) as client:
        state = (await client.get(f"{behind.service.url}/readyz")).json()
    streams: int = state["streams"]
    return streams


@pytest.mark.parametrize("files", [1024, 4096])
async def test_haproxy_starts_under_an_ordinary_limit_of_open_files(dsn: str, tmp_path: Path, files: int) -> None:
    program("haproxy")  # skips before anything is started
    async with (
        serving(dsn, reading="open", trusted_proxies="127.0.0.1") as service,
        fronting("haproxy", service.url, tmp_path, files=files) as front,
        reading(front) as reader,
    ):
        await reader.until("synced")


@PROTOCOLS
async def test_frames_arrive_while_the_stream_is_open(
    behind: Behind, database: "asyncpg.Connection[Any]", http2: bool
) -> None:
    async with reading(behind.front, http2=http2) as reader:
        assert reader.response.headers["content-type"].startswith("text/event-stream")
        assert "content-encoding" not in reader.response.headers
        opening = await reader.until("synced")
        assert opening[0].retry
        assert opening[1].id
        for title in ("first", "second"):
            await database.execute(INSERT, title)
            assert [frame.data["title"] for frame in await reader.jobs(1)] == [title]


@PROTOCOLS
async def test_a_client_that_comes_back_misses_nothing(
    behind: Behind, database: "asyncpg.Connection[Any]", http2: bool
) -> None:
    async with reading(behind.front, http2=http2) as reader:
        await reader.until("synced")
        await database.execute(INSERT, "seen")
        await reader.jobs(1)
        last = reader.last_id
    assert last
    await database.execute(MANY, 3)
    async with reading(behind.front, http2=http2, Last_Event_ID=last) as reader:
        assert [frame.data["title"] for frame in await reader.jobs(3)] == ["Job 1", "Job 2", "Job 3"]
    async with reading(behind.front, f"?last_event_id={last}", http2=http2) as reader:
        assert [frame.data["title"] for frame in await reader.jobs(3)] == ["Job 1", "Job 2", "Job 3"]


@PROTOCOLS
async def test_a_client_that_leaves_is_noticed_without_a_heartbeat(started: Started, http2: bool) -> None:
    async with started(heartbeat=300) as behind, reading(behind.front) as staying:
        await staying.until("synced")
        async with reading(behind.front, http2=http2) as leaving:
            await leaving.until("synced")
            assert await open_streams(behind) == 2

        async def noticed() -> bool:
            return await open_streams(behind) == 1

        await until(noticed, 30)


async def test_the_farewell_passes_through_and_the_stream_ends_cleanly(
    behind: Behind, database: "asyncpg.Connection[Any]"
) -> None:
    url, found = behind.front.url + STREAM, behind.front.resolve
    async with curling(url, "--http2", *found) as second, curling(url, "--http1.1", *found) as first:
        for curl in (first, second):
            await curl.until("synced")
        await database.execute(INSERT, "seen")
        for curl in (first, second):
            await curl.until("posted")
        behind.service.stop.set()
        await asyncio.gather(farewell(first), farewell(second))
        await behind.service.ended


@PROTOCOLS
async def test_while_no_service_is_there_a_stream_is_told_to_come_back_and_the_rest_is_an_error(
    started: Started, proxy: str, http2: bool
) -> None:
    # As shipped they try for some seconds to find a service.
    changes = {
        "nginx": (),
        "caddy": (("lb_try_duration 3s", "lb_try_duration 200ms"),),
        "haproxy": (("retries 3", "retries 1"),),
    }[proxy]
    async with started(changes) as behind:
        behind.service.stop.set()
        await behind.service.ended
        for _ in range(2):  # before and after the proxy has noticed
            async with reading(behind.front, http2=http2) as reader:
                assert reader.response.headers["content-type"] == "text/event-stream"
                [frame] = await reader.rest()
            assert frame.event == "goodbye"
            assert frame.data == {"reason": "unavailable", "retry_ms": frame.retry}
            assert frame.retry and 2000 <= frame.retry <= 6000
            async with behind.front.client(http2=http2) as client:
                assert (await client.get("/v1/jobs")).status_code in (502, 503)


async def test_clients_that_stop_reading_hold_up_nobody(started: Started, database: "asyncpg.Connection[Any]") -> None:
    # The service must not come to the rescue by cutting them off.
    async with started(send_timeout=300, peer_timeout=300) as behind, AsyncExitStack() as stack:
        # Some of each, so that every thread of the proxy, and every connection that it shares, has both.
        for _ in range(4):
            await stack.enter_async_context(stalled(behind.front))
        readers = [await stack.enter_async_context(reading(behind.front)) for _ in range(4)]
        for reader in readers:
            await reader.until("synced")
        for _ in range(5):  # more than a proxy and the kernel hold for one client
            await database.execute(LARGE, 250)
            for reader in readers:
                frames = await reader.jobs(250)
        assert frames[-1].data["title"] == "Large 250"


@asynccontextmanager
async def stalled(front: Front) -> AsyncIterator[None]:
    """A client with an open stream that it does not read."""
    trusted = ssl.create_default_context(cafile=front.certificate)
    trusted.set_alpn_protocols(["http/1.1"])
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", front.port))
        reader, writer = await asyncio.open_connection(sock=sock, ssl=trusted, server_hostname=HOST, limit=1024)
        try:
            writer.write(f"GET {STREAM} HTTP/1.1\r\nHost: {HOST}:{front.port}\r\n\r\n".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            yield
        finally:
            writer.transport.abort()


async def test_streams_outlast_the_time_outs_of_other_requests(started: Started, proxy: str) -> None:
    changes = {
        "nginx": (("proxy_read_timeout 60s;", "proxy_read_timeout 1s;"),),
        "caddy": (("read_header 10s", "read_header 1s"), ("idle 2m", "idle 1s")),
        "haproxy": (("timeout server 60s", "timeout server 1s"), ("timeout client 60s", "timeout client 1s")),
    }[proxy]
    async with started(changes, heartbeat=2) as behind, reading(behind.front) as reader:
        for _ in range(2):
            await reader.until("heartbeat")


async def test_lists_are_compressed(behind: Behind, database: "asyncpg.Connection[Any]") -> None:
    await database.execute(MANY, 50)
    async with behind.front.client() as client:
        answer = await client.get("/v1/jobs?limit=50", headers={"Accept-Encoding": "gzip"})
        assert answer.headers["content-encoding"] == "gzip"
        assert len(answer.json()["jobs"]) == 50


async def test_a_large_write_passes(behind: Behind) -> None:
    key = await make_key(behind.service, "write")
    postings = [
        {"title": f"Job {n}", "company": "Acme", "url": "https://acme.example", "description": "x" * 10_000}
        for n in range(300)
    ]
    async with behind.front.client() as client:
        answer = await client.post("/v1/jobs", json=postings, headers=bearer(key))
        assert answer.status_code in (200, 201), answer.text
        assert answer.json()["created"] == 300


HIDDEN = (
    "/metrics", "/metrics/", "/%6detrics", "/metrics?x=1", "/v1/subscribers", "/v1/subscribers/7", "/v1/%73ubscribers",
    "/v1/../metrics", "//metrics", "/v1//subscribers", "/v1/sources", "/v1/%73ources/",
)  # fmt: skip


async def test_what_is_for_operators_is_not_found_from_outside(proxy: str, tmp_path: Path) -> None:
    """Behind it stands a server that has everything, so that only the proxy can have said no."""
    async with echoing() as echo, fronting(proxy, echo.url, tmp_path) as front:
        for path in HIDDEN:
            assert await status_of(front, path) == "404 over 2", path
        async with front.client() as client:
            for path in ("/healthz", "/readyz", "/v1/probe"):  # `feed doctor` asks for them
                assert (await client.get(path)).status_code == 200
            assert (await client.get("/metricsandmore")).status_code == 200


async def status_of(front: Front, path: str) -> str:
    """The status of a path exactly as it stands here, and the version of HTTP."""
    flags = ("--cacert", str(front.certificate), "--noproxy", "*", "--path-as-is", "-o", "/dev/null")
    return await run("curl", "-sS", *flags, *front.resolve, "-w", "%{http_code} over %{http_version}", front.url + path)


async def run(*command: str) -> str:
    """What a command prints."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    said, _ = await process.communicate()
    return said.decode()


FORGED = {
    "X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9;proto=http", "X-Real-IP": "203.0.113.9",
    "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example",
}  # fmt: skip


@PROTOCOLS
async def test_a_client_cannot_forge_where_it_comes_from(proxy: str, tmp_path: Path, http2: bool) -> None:
    async with echoing() as echo, fronting(proxy, echo.url, tmp_path) as front, front.client(http2=http2) as client:
        for path in ("/v1/jobs", STREAM):
            heard = (await client.get(path, headers=FORGED)).json()
            assert "203.0.113.9" not in str(heard), heard
            assert "evil.example" not in str(heard), heard
            assert heard["x-forwarded-for"] == "127.0.0.1"
            assert heard["x-forwarded-proto"] == "https"
            assert heard["host"] == f"{HOST}:{front.port}"
            assert "forwarded" not in heard


async def test_logs_hold_no_ticket_and_no_credential(proxy: str, tmp_path: Path) -> None:
    async with echoing() as echo, fronting(proxy, echo.url, tmp_path) as front, front.client() as client:
        headers = {"Authorization": "Bearer feedkey_secret", "Cookie": "feed_session=secret"}
        await client.get(f"{STREAM}?ticket=feedticket_secret", headers=headers)
    logged = "".join(file.read_text() for file in tmp_path.glob("*.log"))
    assert STREAM in logged
    assert "secret" not in logged


@PROTOCOLS
async def test_the_service_sees_where_the_client_is(started: Started, http2: bool) -> None:
    # The proxy comes from 127.0.0.1, and that one alone is believed.
    async with (
        started(trusted_proxies="127.0.0.1/32") as behind,
        behind.front.client(http2=http2, address="127.0.0.2") as client,
    ):
        answers = await asyncio.gather(*(client.get("/v1/probe", headers=headers) for headers in ({}, FORGED)))
        for answer in answers:
            assert '"client":"127.0.0.2"' in answer.text, answer.text


async def test_plain_http_is_sent_to_https(behind: Behind) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{behind.front.plain}/v1/jobs", headers={"Host": HOST})
    assert answer.status_code in (301, 308)
    assert answer.headers["location"].startswith(f"https://{HOST}")
    assert answer.headers["location"].endswith("/v1/jobs")
