"""How things end: END_STREAM before GOAWAY, RST_STREAM where a handler fails, and no close that waits for ever."""

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from hyperframe.frame import DataFrame, WindowUpdateFrame

from feed.database.jobs import JobStore
from feed.model import frame
from feed.serving.certificate import self_signed
from tests.conftest import Connect, Running, make_settings, run_server
from tests.h2client import INTERNAL_ERROR, NO_ERROR, STREAM, Exchange, H2Client, h2client, insecure
from tests.processes import serving
from tests.raw import raw_reading
from tests.reader import reading
from tests.server.connections import LIST, server_side
from tests.server.memory import MIB, settings_of
from tests.server.postings import BIG, INSERT
from tests.waiting import until

TERM = signal.SIGTERM
JOB = b'{"title": "Baker", "company": "Acme", "url": "https://acme.example", "description": "%b"}' % (b"x" * 50_000)


@asynccontextmanager
async def thirsty(url: str) -> AsyncIterator[H2Client]:
    """A client with windows so wide that a response leaves as soon as it is there: only its end is still to come."""
    async with h2client(url, settings={4: MIB}) as client:
        await client.send(WindowUpdateFrame(0, MIB))
        await client.ping()
        yield client


async def refused(url: str) -> None:
    """Wait until nobody listens there any more: the drain is over and Hypercorn has been told."""
    where = urlsplit(url)

    async def closed() -> bool:
        try:
            _, writer = await asyncio.open_connection(where.hostname, where.port)
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:  # it was in the queue of the socket that has just been closed
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return False

    await until(closed)


def ended_before_goaway(client: H2Client, *exchanges: Exchange) -> bool:
    """Whether these ended cleanly, none behind a GOAWAY."""
    ends = [client.came.index(("END_STREAM", exchange.id)) for exchange in exchanges]
    return client.goaway in (None, NO_ERROR) and ("GOAWAY", 0) not in client.came[: max(ends)]


@pytest.mark.parametrize("tls", [False, True])
async def test_every_stream_of_a_drain_ends_with_end_stream_before_any_goaway(
    dsn: str, tmp_path: Path, tls: bool
) -> None:
    certificate = self_signed(tmp_path, "127.0.0.1") if tls else None
    async with serving(dsn, certificate=certificate, close_timeout=0.3) as service, h2client(service.url) as client:
        streams = [await client.stream() for _ in range(50)]
        service.signal(TERM)
        for stream in streams:
            assert [event.event for event in await stream.rest()] == ["goodbye"]
        await client.closed()
        assert ended_before_goaway(client, *streams)
        assert await service.ended() == 0
        assert service.said == b""


@pytest.mark.parametrize("tls", [False, True])
async def test_a_write_that_is_under_way_when_the_service_stops_is_answered_to_the_end(
    dsn: str, database: "asyncpg.Connection[Any]", tmp_path: Path, tls: bool
) -> None:
    certificate = self_signed(tmp_path, "127.0.0.1") if tls else None
    async with serving(dsn, certificate=certificate, close_timeout=0.3) as service, thirsty(service.url) as client:
        stream = await client.stream()
        write = await client.get("/v1/jobs", "POST", {"content-type": "application/json"}, ended=False)
        await client.send(DataFrame(write.id, JOB[:20]))
        await client.ping()
        service.signal(TERM)
        assert [event.event for event in await stream.rest()] == ["goodbye"]
        await refused(service.url)
        await client.upload(write, JOB[20:])
        assert (await write.json())["title"] == "Baker"
        assert write.status == 201
        await client.closed()
        assert ended_before_goaway(client, stream, write)
        assert await service.ended() == 0
        assert service.said == b""


@pytest.mark.parametrize("body", [b"", b'"something"', b'"%b"' % (b"x" * 200_000)], ids=["empty", "small", "large"])
async def test_a_response_that_is_under_way_when_the_service_stops_ends_cleanly(
    server: Running, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def read(*_: object) -> bytes:
        asked.set()
        await go.wait()
        return body

    monkeypatch.setattr(JobStore, "read", read)
    async with thirsty(server.url) as client:
        exchange = await client.get("/v1/jobs/1")
        await asked.wait()
        server.stop.set()
        await refused(server.url)
        go.set()
        await exchange.response()
        assert exchange.status == 200
        assert exchange.body == body
        await client.closed()
        assert ended_before_goaway(client, exchange)
        await server.ended


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[set[str]]:
    """The product's frames; the `synced` of every stream opened while this holds something fails."""
    reasons: set[str] = set()
    synced = frame.synced

    def fail(position: int, replayed: int) -> bytes:
        if reasons:
            raise ZeroDivisionError("a fault of ours")
        return synced(position, replayed)

    monkeypatch.setattr(frame, "synced", fail)
    return reasons


async def test_a_handler_that_fails_half_way_resets_its_own_http2_stream(
    server: Running, database: "asyncpg.Connection[Any]", failing: set[str]
) -> None:
    async with h2client(server.url) as client:
        stays = await client.stream()
        failing.add("now")
        fails = await client.get(STREAM)
        assert await fails.reset() == INTERNAL_ERROR
        failing.clear()
        assert fails.status == 200
        late = await client.stream()
        await database.execute(INSERT, "still here")
        for stream in (stays, late):
            assert (await stream.jobs(1))[0].data["title"] == "still here"
        assert client.goaway is None
        await until(lambda: len(server.service.streams) == 2)


async def test_a_handler_that_fails_half_way_closes_its_http1_connection_without_the_last_chunk(
    server: Running, database: "asyncpg.Connection[Any]", failing: set[str]
) -> None:
    async with reading(server.url) as stays:
        await stays.until("synced")
        failing.add("now")
        async with raw_reading(server.url) as fails:
            with pytest.raises(ConnectionError):
                while await fails.frame() is not None:
                    pass
        failing.clear()
        await database.execute(INSERT, "still here")
        assert (await stays.jobs(1))[0].data["title"] == "still here"
        await until(lambda: len(server.service.streams) == 1)


class SilentTls:
    """A TLS client that shakes hands, asks, and never answers again: it does not even say close_notify."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *protocols: str) -> None:
        self._reader, self._writer = reader, writer
        self._come, self._go = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = insecure()
        context.set_alpn_protocols(protocols)
        self._tls = context.wrap_bio(self._come, self._go)
        self.port: int = writer.get_extra_info("sockname")[1]

    async def _turn(self) -> None:
        self._writer.write(self._go.read())
        self._come.write(await self._reader.read(65536))

    async def handshake(self) -> None:
        """Until both sides are content."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._turn()
            else:
                self._writer.write(self._go.read())
                return

    async def ask(self, data: bytes, answered: bytes) -> None:
        """Send `data` and take what comes until `answered`, and no more of it."""
        self._tls.write(data)
        self._writer.write(self._go.read())
        seen = b""
        while answered not in seen:
            try:
                seen += self._tls.read(65536)
            except ssl.SSLWantReadError:
                await self._turn()


@asynccontextmanager
async def silent_tls(url: str, *protocols: str) -> AsyncIterator[SilentTls]:
    """Connect and shake hands."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        client = SilentTls(reader, writer, *protocols)
        await client.handshake()
        yield client
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def test_a_tls_client_that_never_says_close_notify_is_closed_all_the_same(dsn: str, tmp_path: Path) -> None:
    settings = settings_of(dsn, tmp_path, tls=True, close_timeout=0.3)
    async with run_server(settings) as running, silent_tls(running.url, "http/1.1") as client:
        await client.ask(GET % b"/healthz", b"true")
        await until(lambda: "01" not in server_side(running.url, client.port), 10)


@pytest.mark.parametrize("tls", [False, True])
async def test_a_client_that_takes_no_last_response_is_cut_off(
    dsn: str, database: "asyncpg.Connection[Any]", tmp_path: Path, tls: bool
) -> None:
    await database.execute(BIG, 60)
    settings = settings_of(dsn, tmp_path, tls=tls, close_timeout=0.3, send_timeout=0.5)
    async with run_server(settings) as running:
        where = urlsplit(running.url)
        context = insecure() if tls else None
        if context is not None:
            context.set_alpn_protocols(["http/1.1"])
        reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=context, limit=1024)
        try:
            port = writer.get_extra_info("sockname")[1]
            writer.write(GET % LIST.encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await until(lambda: not server_side(running.url, port), 10)
        finally:
            writer.transport.abort()
            with suppress(OSError, ssl.SSLError):
                await writer.wait_closed()


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
async def test_idle_tls_clients_that_never_say_close_notify_do_not_hold_up_the_end(
    dsn: str, tmp_path: Path, protocol: str
) -> None:
    certificate = self_signed(tmp_path, "127.0.0.1")
    async with (
        serving(dsn, certificate=certificate, close_timeout=0.3) as service,
        silent_tls(service.url, protocol) as idle,
        silent_tls(service.url, protocol) as asked,
        h2client(service.url) as client,
    ):
        stream = await client.stream()
        if protocol == "http/1.1":
            await asked.ask(GET.replace(b"Connection: close\r\n", b"") % b"/healthz", b"true")
        service.signal(TERM)
        assert [event.event for event in await stream.rest()] == ["goodbye"]
        for port in (idle.port, asked.port):
            await until(lambda: "01" not in server_side(service.url, port), 10)
        assert await service.ended(10) == 0
        assert service.said == b""


async def test_a_stalled_response_ends_with_the_process_and_with_0(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    await database.execute(BIG, 60)
    async with serving(dsn, drain_requests=0.5) as service, h2client(service.url, buffer=4096) as client:
        client.shut = {0}
        list_ = await client.get(LIST)
        await client.until(lambda: list_.body)
        service.signal(TERM)
        assert await service.ended(10) == 0
        assert service.said == b""


async def test_a_list_that_waits_for_its_database_is_not_cut_by_the_end(
    dsn: str, connect: Connect, database: "asyncpg.Connection[Any]"
) -> None:
    # A list waits for a lock that its writer gives back only after the service was told to stop.
    await database.execute(BIG, 5)
    writer = await connect()
    async with run_server(make_settings(dsn)) as running, thirsty(running.url) as client:
        await until(lambda: running.service.hub.head == 5)
        async with writer.transaction():
            await writer.execute("LOCK TABLE job IN ACCESS EXCLUSIVE MODE")
            waits = await client.get("/v1/jobs")
            await until(lambda: _waiting(database))
            running.stop.set()
            await refused(running.url)
        assert len((await waits.json())["jobs"]) == 5
        await client.closed()
        assert ended_before_goaway(client, waits)


async def _waiting(database: "asyncpg.Connection[Any]") -> bool:
    return bool(await database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
