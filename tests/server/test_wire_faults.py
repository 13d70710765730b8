"""Faults of clients: not one is worth a traceback or more than a line, and nobody else notices."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from feed.serving.certificate import self_signed
from tests.clones import Clones
from tests.h2client import PREFACE, STREAM, Exchange, H2Client, h2client, insecure
from tests.processes import ServiceProcess, serving
from tests.raw import RawReader, raw_reading
from tests.server.connections import server_side
from tests.server.faults import TERM
from tests.server.memory import MIB, Memory, open_streams
from tests.server.postings import INSERT
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(slots=True)
class Town:
    """Two services, without and with TLS, on one database."""

    plain: ServiceProcess
    tls: ServiceProcess
    database: "asyncpg.Connection[Any]"
    posted: int = 0

    def check(self) -> None:
        """Nothing was logged since the last look but single lines up to a warning."""
        for service in (self.plain, self.tls):
            lines, service.said = service.said.splitlines(), b""
            for line in lines:
                entry = json.loads(line)
                assert "exception" not in entry, f"{entry['event']}\n{entry['exception']}"
                assert entry["level"] in ("debug", "info", "warning"), entry

    async def post(self) -> str:
        """The title of a new posting."""
        self.posted += 1
        await self.database.execute(INSERT, f"Job {self.posted}")
        return f"Job {self.posted}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(clones: Clones, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    certificate = self_signed(tmp_path_factory.mktemp("tls"), "127.0.0.1")
    async with (
        clones.one() as dsn,
        serving(dsn) as plain,
        serving(dsn, certificate=certificate) as tls,
    ):
        database = await asyncpg.connect(dsn, server_settings={"search_path": "feed"})
        try:
            made = Town(plain, tls, database)
            yield made
        finally:
            await database.close()
        for service in (plain, tls):
            service.signal(TERM)
            assert await service.ended() == 0
        made.check()


@asynccontextmanager
async def innocents(town: Town) -> AsyncIterator[list[RawReader | Exchange]]:
    """Streams of others, on every protocol; they see what is posted after whatever happens meanwhile."""
    async with AsyncExitStack() as stack:
        http1 = await stack.enter_async_context(raw_reading(town.plain.url))
        await http1.until("synced")
        readers: list[RawReader | Exchange] = [http1]
        for url in (town.plain.url, town.tls.url):
            readers.append(await (await stack.enter_async_context(h2client(url))).stream())
        try:
            yield readers
        except BaseException:
            town.plain.said = town.tls.said = b""  # it is told; the next test begins anew
            raise
        await hear(town, *readers)
        for service, count in ((town.plain, 2), (town.tls, 1)):

            async def only_ours() -> bool:
                return await open_streams(service.url) == count

            await until(only_ours)
        for url in (town.plain.url, town.tls.url):
            async with h2client(url) as late:
                assert (await (await late.get("/healthz")).response()).status == 200
    town.check()


async def hear(town: Town, *readers: RawReader | Exchange) -> None:
    """Each of these gets what is posted now, and all before it since it came."""
    title = await town.post()
    for reader in readers:
        jobs = await reader.jobs(1)
        while jobs[-1].data["title"] != title:
            jobs += await reader.jobs(1)
            assert jobs[-1].position == jobs[-2].position + 1


async def forgotten(url: str, port: int) -> None:
    """Wait until the service has let go of a connection."""
    await until(lambda: set(server_side(url, port)) <= {"06"})  # TIME_WAIT is the kernel's


@asynccontextmanager
async def connected(url: str, context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Any, Any]]:
    """A connection, cut with a RST and forgotten by the service on leaving."""
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=context)
    sock = writer.get_extra_info("socket")
    port = sock.getsockname()[1]
    try:
        yield reader, writer
    finally:
        if sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        with suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
    await forgotten(url, port)


async def taken(reader: asyncio.StreamReader) -> bytes:
    """The next of what comes; nothing at the end, however it ends."""
    async with asyncio.timeout(10):
        with suppress(ConnectionError, ssl.SSLError):
            return await reader.read(65536)
        return b""


HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(200)
"""The beginning of a TLS handshake, and no sense after it."""

POST = "POST /v1/jobs HTTP/1.1\r\nHost: feed\r\nContent-Type: application/json\r\n"

ANSWERED = {
    "garbage": bytes(range(255, -1, -1)) * 8 + b"\r\n\r\n",
    "a TLS handshake": HELLO + b"\r\n\r\n",
    "no host": "GET /healthz HTTP/1.1\r\n\r\n",
    "a version of its own": "GET /healthz HTTP/9.9\r\nHost: feed\r\n\r\n",
    "a path that is not ASCII": b"GET /v1/jobs/\xff\xfe HTTP/1.1\r\nHost: feed\r\n\r\n",
    "a path in UTF-8": "GET /v1/jobs/stream?company=Müller HTTP/1.1\r\nHost: feed\r\n\r\n",
    "a path that decodes to nonsense": "GET /%ff%00%0d%0a HTTP/1.1\r\nHost: feed\r\n\r\n",
    "a method that is not ASCII": b"G\xcbT /healthz HTTP/1.1\r\nHost: feed\r\n\r\n",
    "a method of its own": "BREW /healthz HTTP/1.1\r\nHost: feed\r\n\r\n",
    "a header that is not ASCII": b"GET /healthz HTTP/1.1\r\nHost: feed\r\nLast-Event-ID: \xff\xfe\r\n\r\n",
    "a header with NUL": b"GET /healthz HTTP/1.1\r\nHost: feed\r\nX: a\x00b\r\n\r\n",
    "a long header": f"GET /healthz HTTP/1.1\r\nHost: feed\r\nX: {'x' * 1_000_000}\r\n\r\n",
    "many headers": "GET /healthz HTTP/1.1\r\nHost: feed\r\n" + "X: x\r\n" * 50_000 + "\r\n",
    "an endless line": "GET /" + "x" * 1_000_000,
    "two lengths": POST + "Content-Length: 3\r\nContent-Length: 4\r\n\r\n[]  ",
    "a negative length": POST + "Content-Length: -1\r\n\r\n",
    "length and chunks": POST + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a broken chunk": POST + "Transfer-Encoding: chunked\r\n\r\nzz\r\n[]\r\n0\r\n\r\n",
    "an unknown encoding": POST + "Transfer-Encoding: gzip\r\n\r\n",
    "CONNECT": "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n",
    "an absolute target": "GET http://feed/healthz HTTP/1.1\r\nHost: feed\r\n\r\n",
    "an asterisk": "OPTIONS * HTTP/1.1\r\nHost: feed\r\n\r\n",
    "HEAD on the stream": f"HEAD {STREAM} HTTP/1.1\r\nHost: feed\r\n\r\n",
    "HTTP/1.0": "GET /healthz HTTP/1.0\r\n\r\n",
    "a stream over HTTP/1.0": f"GET {STREAM} HTTP/1.0\r\n\r\n",
    "requests in a row": "GET /healthz HTTP/1.1\r\nHost: feed\r\n\r\n" * 20
    + f"GET {STREAM} HTTP/1.1\r\nHost: feed\r\n\r\n" * 3,
    "a websocket": f"GET {STREAM} HTTP/1.1\r\nHost: feed\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "half a websocket": f"GET {STREAM} HTTP/1.1\r\nHost: feed\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "an upgrade to h2c": "GET /healthz HTTP/1.1\r\nHost: feed\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\n"
    "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
    "an upgrade of a stream to h2c": f"GET {STREAM} HTTP/1.1\r\nHost: feed\r\nConnection: upgrade, http2-settings\r\n"
    "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n" + PREFACE.decode(),
    "an upgrade to h2c without settings": "GET /healthz HTTP/1.1\r\nHost: feed\r\nUpgrade: h2c\r\n\r\n",
    "an upgrade to h2c with broken settings": "GET /healthz HTTP/1.1\r\nHost: feed\r\nConnection: upgrade\r\n"
    "Upgrade: h2c\r\nHTTP2-Settings: !!!\r\n\r\n",
    "a body without a length": "POST /v1/jobs HTTP/1.1\r\nHost: feed\r\nContent-Type: application/json\r\n\r\n[]",
    "a body behind the answer": "POST /nowhere HTTP/1.1\r\nHost: feed\r\nContent-Length: 300000\r\n\r\n" + "x" * 300_000,
    "a preface and garbage": PREFACE + b"\xff" * 200,
    "a preface and HTTP/1.1": PREFACE + b"GET /healthz HTTP/1.1\r\nHost: feed\r\n\r\n",
    "half a preface": PREFACE[:18] + b"XX\r\n\r\n",
}  # fmt: skip
"""What a client sends over TCP; the service says something, or hangs up."""


@pytest.mark.parametrize("sent", ANSWERED.values(), ids=ANSWERED)
async def test_nonsense_on_the_plain_port_is_answered_or_hung_up_on(town: Town, sent: str | bytes) -> None:
    async with innocents(town), connected(town.plain.url) as (reader, writer):
        writer.write(sent if isinstance(sent, bytes) else sent.encode())
        await taken(reader)


CUT = {
    "nothing": "",
    "half a line": "GET /heal",
    "half a head": "GET /healthz HTTP/1.1\r\nHost: fe",
    "half an upload": POST + "Content-Length: 1000\r\n\r\n[{",
    "half an upload in chunks": POST + "Transfer-Encoding: chunked\r\n\r\n2\r\n[{\r\n",
    "half a preface": PREFACE[:7],
    "the wish to continue": POST + "Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n",
    "an open stream": f"GET {STREAM} HTTP/1.1\r\nHost: feed\r\n\r\n",
    "two open streams": f"GET {STREAM} HTTP/1.1\r\nHost: feed\r\n\r\n" * 2,
}


@pytest.mark.parametrize("by", ["a reset", "a half-close"])
@pytest.mark.parametrize("sent", CUT.values(), ids=CUT)
async def test_a_client_may_leave_at_any_time(town: Town, sent: str | bytes, by: str) -> None:
    async with innocents(town), connected(town.plain.url) as (_, writer):
        writer.write(sent if isinstance(sent, bytes) else sent.encode())
        await writer.drain()
        if by == "a half-close":
            writer.write_eof()


@pytest.mark.parametrize(
    "sent", [b"GET /healthz HTTP/1.1\r\nHost: feed\r\n\r\n", bytes(range(255, -1, -1)) * 8, HELLO, HELLO[:20], b"", PREFACE],
    ids=["plain HTTP", "garbage", "a hello", "half a hello", "nothing", "a plain preface"],
)  # fmt: skip
async def test_what_is_no_tls_on_the_tls_port_is_hung_up_on(town: Town, sent: bytes) -> None:
    async with innocents(town), connected(town.tls.url) as (reader, writer):
        writer.write(sent)
        await writer.drain()
        if len(sent) > 20:
            await taken(reader)


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
@pytest.mark.parametrize(
    "sent",
    [b"\x00garbage\xff\r\n\r\n" * 10, f"GET {STREAM} HTTP/1.1\r\nHost: feed\r\n\r\n".encode(), PREFACE + b"\xff" * 100],
    ids=["garbage", "HTTP/1.1", "HTTP/2"],
)  # fmt: skip
async def test_nonsense_inside_of_tls_is_answered_or_hung_up_on(town: Town, sent: bytes, protocol: str) -> None:
    context = insecure()
    context.set_alpn_protocols([protocol])
    async with innocents(town), connected(town.tls.url, context) as (reader, writer):
        writer.write(sent)
        await taken(reader)


Fault = Callable[[H2Client], Awaitable[None]]

POSTING = {"content-type": "application/json"}


def sending(*frames: Frame | bytes) -> Fault:
    """A fault that is no more than these frames."""

    async def fault(client: H2Client) -> None:
        await client.send(*frames)

    return fault


def asking(fields: list[tuple[Any, Any]], **more: Any) -> Fault:
    """A fault that is a request with just these fields."""

    async def fault(client: H2Client) -> None:
        await client.send(client.headers(fields, **more))

    return fault


async def data_on_a_stream_that_ended(client: H2Client) -> None:
    ended = await (await client.get("/healthz")).response()
    await client.send(DataFrame(ended.id, b"more"))


async def headers_on_a_stream_that_ended(client: H2Client) -> None:
    ended = await (await client.get("/healthz")).response()
    _, request = client.asking("/healthz")
    request.stream_id = ended.id
    await client.send(request)


async def continuations(client: H2Client) -> None:
    exchange, request = client.asking("/healthz")
    request.flags.discard("END_HEADERS")
    await client.send(request)
    for _ in range(200):
        await client.send(ContinuationFrame(exchange.id, b"\x00\x01x\x7f\x80\x3f" + b"x" * 16_000))


async def a_header_block_interrupted(client: H2Client) -> None:
    _, request = client.asking("/healthz")
    request.flags.discard("END_HEADERS")
    await client.send(request, PingFrame(opaque_data=b"feedfeed"))


async def a_wrong_length(client: H2Client) -> None:
    exchange = await client.get("/v1/jobs", "POST", POSTING | {"content-length": "3"}, ended=False)
    await client.send(DataFrame(exchange.id, b"[1, 2, 3]", flags=["END_STREAM"]))


async def a_settings_flood(client: H2Client) -> None:
    await client.send(*[SettingsFrame(settings={4: 65535 + n % 2}) for n in range(5_000)])


async def a_ping_flood(client: H2Client) -> None:
    await client.send(*[PingFrame(opaque_data=b"feedfeed")] * 5_000)


async def an_empty_data_flood(client: H2Client) -> None:
    exchange = await client.get("/v1/jobs", "POST", POSTING, ended=False)
    await client.send(*[DataFrame(exchange.id, b"")] * 5_000)


HOST = (":authority", "feed")
HTTP = (":scheme", "http")

ENDS_THE_CONNECTION_AT_MOST: dict[str, Fault] = {
    "headers without :path": asking([(":method", "GET"), HTTP, HOST]),
    "headers without :method": asking([(":path", "/healthz"), HTTP, HOST]),
    "headers without :scheme": asking([(":method", "GET"), (":path", "/healthz"), HOST]),
    "headers without anything": asking([]),
    "an empty :path": asking([(":method", "GET"), (":path", ""), HTTP, HOST]),
    "a :path that is not ASCII": asking([(":method", "GET"), (b":path", b"/v1/jobs/\xff\xfe"), HTTP, HOST]),
    "a :path in UTF-8": asking([(":method", "GET"), (":path", f"{STREAM}?company=Müller"), HTTP, HOST]),
    "a :method that is not ASCII": asking([(b":method", b"G\xcbT"), (":path", "/healthz"), HTTP, HOST]),
    "an :authority that is not ASCII": asking([(":method", "GET"), (":path", "/healthz"), HTTP, (b":authority", b"\xff")]),
    "a field that is not ASCII": asking([(":method", "GET"), (":path", STREAM), HTTP, HOST, (b"last-event-id", b"\xff")]),
    "a field in upper case": asking([(":method", "GET"), (":path", "/healthz"), HTTP, HOST, ("X", "x")]),
    "a field of the connection": asking([(":method", "GET"), (":path", "/healthz"), HTTP, HOST, ("connection", "close")]),
    "the method twice": asking([(":method", "GET"), (":method", "GET"), (":path", "/healthz"), HTTP, HOST]),
    "no authority": asking([(":method", "GET"), (":path", "/healthz"), HTTP]),
    "CONNECT": asking([(":method", "CONNECT"), (":authority", "example.org:443")], ended=False),
    "CONNECT with a path": asking([(":method", "CONNECT"), (":path", "/"), HTTP, HOST], ended=False),
    "CONNECT for a websocket": asking(
        [(":method", "CONNECT"), (":protocol", "websocket"), (":path", STREAM), HTTP, HOST,
         ("sec-websocket-version", "13")], ended=False),
    "connect in lower case": asking([(":method", "connect"), (":path", "/healthz"), HTTP, HOST]),
    "a long field": asking([(":method", "GET"), (":path", "/healthz"), HTTP, HOST, ("x", "x" * 16_000)]),
    "continuations without end": continuations,
    "a header block interrupted": a_header_block_interrupted,
    "a broken header block": sending(HeadersFrame(1001, b"\xff\xff\xff\xff\xff\xff", flags=["END_HEADERS"])),
    "a stream of ours": sending(HeadersFrame(1002, b"\x82", flags=["END_HEADERS"])),
    "DATA on a stream that ended": data_on_a_stream_that_ended,
    "HEADERS on a stream that ended": headers_on_a_stream_that_ended,
    "DATA on an idle stream": sending(DataFrame(1001, b"data")),
    "DATA on no stream": sending(bytes((0, 0, 1, 0, 0, 0, 0, 0, 0, 120))),
    "RST_STREAM on an idle stream": sending(RstStreamFrame(1001, 8)),
    "a window for an idle stream": sending(WindowUpdateFrame(1001, 100)),
    "no window": sending(bytes((0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0))),
    "no window for a stream": sending(bytes((0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 0, 0, 0))),
    "a window too wide": sending(WindowUpdateFrame(0, 2**31 - 1)),
    "windows too wide": sending(SettingsFrame(settings={4: 2**31})),
    "a frame size too small": sending(SettingsFrame(settings={5: 1})),
    "SETTINGS with an odd length": sending(bytes((0, 0, 5, 4, 0, 0, 0, 0, 0)) + bytes(5)),
    "SETTINGS on a stream": sending(bytes((0, 0, 0, 4, 0, 0, 0, 0, 1))),
    "an acknowledgement of nothing": sending(SettingsFrame(flags=["ACK"])),
    "a PING of an odd length": sending(bytes((0, 0, 3, 6, 0, 0, 0, 0, 0)) + bytes(3)),
    "a frame too long": sending(bytes((0, 64, 1, 0, 0, 0, 0, 0, 1)) + bytes(16_385)),
    "a promise": sending(PushPromiseFrame(1, 2, b"\x82", flags=["END_HEADERS"])),
    "a CONTINUATION of nothing": sending(ContinuationFrame(1, b"\x82", flags=["END_HEADERS"])),
    "a farewell with an error": sending(GoAwayFrame(0, last_stream_id=0, error_code=1)),
    "a wrong length": a_wrong_length,
    "a flood of SETTINGS": a_settings_flood,
    "a flood of PING": a_ping_flood,
    "a flood of empty DATA": an_empty_data_flood,
}  # fmt: skip


async def settled(client: H2Client) -> None:
    """Wait until the service has dealt with all that was sent, or has hung up."""
    before = client.came.count(("PING", 0))
    with suppress(ConnectionError):
        await client.send(PingFrame(opaque_data=b"feedfeed"))
        await client.until(lambda: client.came.count(("PING", 0)) > before)


@pytest.mark.parametrize("fault", ENDS_THE_CONNECTION_AT_MOST.values(), ids=ENDS_THE_CONNECTION_AT_MOST)
async def test_a_fault_on_http2_ends_that_connection_at_most(town: Town, fault: Fault) -> None:
    async with innocents(town):
        async with h2client(town.plain.url) as client:
            port = client.port
            await client.stream()
            with suppress(ConnectionError):
                await fault(client)
            await settled(client)
        await forgotten(town.plain.url, port)


async def a_body_behind_the_answer(client: H2Client) -> None:
    early = await client.get("/nowhere", "POST", POSTING, ended=False)
    await client.until(lambda: early.headers)
    assert early.status == 404
    await client.send(DataFrame(early.id, b"x" * 10_000), DataFrame(early.id, b"x", flags=["END_STREAM"]))


async def an_upload_aborted(client: H2Client) -> None:
    upload = await client.get("/v1/jobs", "POST", POSTING, ended=False)
    await client.send(DataFrame(upload.id, b'[{"title'), RstStreamFrame(upload.id, 8))


async def an_upload_aborted_at_once(client: H2Client) -> None:
    upload, request = client.asking("/v1/jobs", "POST", POSTING, ended=False)
    await client.send(request, DataFrame(upload.id, b'[{"title'), RstStreamFrame(upload.id, 8))


async def a_stream_left_at_once(client: H2Client) -> None:
    exchange, request = client.asking(STREAM)
    await client.send(request, RstStreamFrame(exchange.id, 8))


async def streams_left_one_by_one_in_one_segment(client: H2Client) -> None:
    opened = [client.asking(STREAM) for _ in range(20)]
    await client.send(*(frame for exchange, request in opened for frame in (request, RstStreamFrame(exchange.id, 8))))


async def a_window_too_wide_for_one_stream(client: H2Client) -> None:
    exchange, request = client.asking(STREAM)
    await client.send(request, WindowUpdateFrame(exchange.id, 2**31 - 1))
    await exchange.reset()


async def windows_for_a_stream_that_ended(client: H2Client) -> None:
    ended = await (await client.get("/healthz")).response()
    await client.send(WindowUpdateFrame(ended.id, 1000), RstStreamFrame(ended.id, 8), WindowUpdateFrame(ended.id, 1000))


async def head_on_the_stream(client: H2Client) -> None:
    head = await (await client.get(STREAM, "HEAD")).response()
    assert not head.body


async def trailers(client: H2Client) -> None:
    upload = await client.get("/v1/jobs", "POST", POSTING, ended=False)
    trailer = client.headers([("x", "y")])
    trailer.stream_id = upload.id
    await client.send(DataFrame(upload.id, b"[]"), trailer)
    await upload.response()


async def a_frame_of_a_kind_to_come(client: H2Client) -> None:
    await client.send(bytes((0, 0, 4, 0xF1, 0, 0, 0, 0, 0)) + b"what")


async def a_body_for_the_stream(client: H2Client) -> None:
    exchange = await client.get(STREAM, ended=False)
    await exchange.events("synced")
    await client.send(DataFrame(exchange.id, b"x" * 10_000), RstStreamFrame(exchange.id, 8))


async def smaller_windows(client: H2Client) -> None:
    await client.send(SettingsFrame(settings={4: 0}))
    await settled(client)
    await client.send(SettingsFrame(settings={4: 65535}))


KEEPS_THE_CONNECTION: list[Fault] = [
    a_body_behind_the_answer, an_upload_aborted, an_upload_aborted_at_once, a_stream_left_at_once,
    streams_left_one_by_one_in_one_segment, a_window_too_wide_for_one_stream, windows_for_a_stream_that_ended,
    head_on_the_stream, trailers, a_frame_of_a_kind_to_come, a_body_for_the_stream, smaller_windows,
]  # fmt: skip


@pytest.mark.parametrize("fault", KEEPS_THE_CONNECTION, ids=lambda fault: fault.__name__)
async def test_a_fault_of_one_stream_leaves_the_others_on_its_connection_alone(town: Town, fault: Fault) -> None:
    async with innocents(town), h2client(town.plain.url) as client:
        stream = await client.stream()
        await fault(client)
        await settled(client)
        await hear(town, stream, await client.stream())
        assert client.goaway is None


async def test_more_streams_than_allowed_before_settings_are_refused_one_by_one(town: Town) -> None:
    # hypercorn #335: a client that has not read our SETTINGS yet cannot know how many it may open.
    async with innocents(town), h2client(town.plain.url) as client:
        opened = [client.asking(STREAM) for _ in range(300)]
        await client.send(*(request for _, request in opened))
        await client.ping()
        allowed = client.settings[3]
        for exchange, _ in opened[:allowed]:
            await exchange.events("synced")
        for exchange, _ in opened[allowed:]:
            assert await exchange.reset() == 7  # REFUSED_STREAM: it may try again (RFC 9113, 8.7)
        assert len(opened) > allowed
        await hear(town, *(exchange for exchange, _ in opened[:allowed]))
        assert client.goaway is None


@pytest.mark.parametrize("sent", [PREFACE, bytes((255, 255, 255, 0, 0, 0, 0, 0, 1))], ids=["a preface", "DATA"])
async def test_a_frame_that_is_announced_too_long_is_refused_before_it_has_come(town: Town, sent: bytes) -> None:
    async with innocents(town), h2client(town.plain.url) as client:
        await client.stream()
        await client.send(sent, bytes(1000))
        await client.closed()
        assert client.goaway == 6  # FRAME_SIZE_ERROR


@pytest.mark.parametrize(
    "frame", [PingFrame(opaque_data=b"feedfeed"), SettingsFrame(settings={4: 65535})], ids=["PING", "SETTINGS"]
)
async def test_a_flood_whose_answers_nobody_reads_fills_no_memory(town: Town, frame: Frame) -> None:
    async with innocents(town), h2client(town.plain.url, buffer=4096) as client:
        memory = Memory(town.plain.process.pid)
        flood = frame.serialize() * (MIB // len(frame.serialize()))
        sent = 0
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(2):
                while sent < 16:
                    await client.send(flood)
                    sent += 1
        assert memory.growth < 8 * MIB
