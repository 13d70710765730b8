"""Floods over HTTP/2: whoever sends what carries nothing is sent away, and nobody else notices."""

from collections.abc import Callable
from typing import Any

import asyncpg
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.conftest import make_settings, run_server
from tests.h2client import ENHANCE_YOUR_CALM, STREAM, H2Client, h2client
from tests.reader import reading
from tests.server.postings import INSERT
from tests.waiting import until

RATE = 20
COUNT = 800
"""Frames: over all that a connection may send at once, whatever they count."""

Flood = Callable[[H2Client, int], list[Frame | bytes]]


def empty_data(client: H2Client, _: int) -> list[Frame | bytes]:
    """DATA without data, in the middle of an upload (CVE-2019-9518)."""
    exchange, request = client.asking("/v1/jobs", "POST", {"content-type": "application/json"}, ended=False)
    return [request, *[DataFrame(exchange.id, b"")] * COUNT]


def padded_data(client: H2Client, _: int) -> list[Frame | bytes]:
    """The same with padding, which is not nothing."""
    exchange, request = client.asking("/v1/jobs", "POST", {"content-type": "application/json"}, ended=False)
    return [request, *[DataFrame(exchange.id, b"", pad_length=20, flags=["PADDED"])] * COUNT]


def after_a_reset(client: H2Client, _: int) -> list[Frame | bytes]:
    """Frames for a stream that the client has reset: each is answered with a reset."""
    exchange, request = client.asking("/healthz", "POST", ended=False)
    return [request, RstStreamFrame(exchange.id, 8), *[DataFrame(exchange.id, b"x")] * COUNT]


def continuations(client: H2Client, _: int) -> list[Frame | bytes]:
    """A head without end (CVE-2024-27316)."""
    _, request = client.asking("/healthz")
    head = HeadersFrame(request.stream_id, request.data)
    return [head, *[ContinuationFrame(request.stream_id, b"\x00\x01x\x7f\x01" + b"y" * 1_000)] * 40]


def empty_continuations(client: H2Client, _: int) -> list[Frame | bytes]:
    """The same with nothing in it."""
    _, request = client.asking("/healthz")
    return [HeadersFrame(request.stream_id, request.data), *[ContinuationFrame(request.stream_id, b"")] * COUNT]


def empty_fields(client: H2Client, _: int) -> list[Frame | bytes]:
    """Fields with no value, which take memory and no bandwidth (CVE-2019-9516)."""
    fields = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "feed"), *[("x", "")] * 1_000]
    return [client.headers(fields)]


FLOODS: dict[str, Flood] = {
    "PING": lambda *_: [PingFrame(opaque_data=b"flood!!!")] * COUNT,
    "PING that acknowledges nothing": lambda *_: [PingFrame(opaque_data=b"flood!!!", flags=["ACK"])] * COUNT,
    "SETTINGS": lambda *_: [SettingsFrame(settings={4: 65_535})] * COUNT,
    "SETTINGS with nothing in it": lambda *_: [SettingsFrame()] * COUNT,
    "empty DATA": empty_data,
    "padded DATA": padded_data,
    "PRIORITY": lambda *_: [PriorityFrame(stream_id=5, depends_on=3)] * COUNT,
    "unknown frames": lambda *_: [ExtensionFrame(type=0xBE, stream_id=0, flag_byte=0, body=b"")] * COUNT,
    "WINDOW_UPDATE of the connection": lambda *_: [WindowUpdateFrame(0, 1)] * COUNT,
    "WINDOW_UPDATE of a stream": lambda _, stream: [WindowUpdateFrame(stream, 1)] * COUNT,
    "frames after a reset": after_a_reset,
    "CONTINUATION": continuations,
    "empty fields": empty_fields,
}


async def test_a_flood_of_frames_that_carry_nothing_is_ended_and_nobody_else_notices(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with (
        run_server(make_settings(dsn, h2_control_rate=RATE)) as running,
        reading(running.url, http2=True) as innocent,
    ):
        await innocent.until("synced")
        for name, flood in FLOODS.items():
            async with h2client(running.url) as client:
                stream = await client.stream()
                frames = flood(client, stream.id)
                octets = (frame if isinstance(frame, bytes) else frame.serialize() for frame in frames)
                client.writer.write(b"".join(octets))
                await client.closed(30)
                assert client.goaway == ENHANCE_YOUR_CALM, name
            await until(lambda: len(running.service.streams) == 1)
            await database.execute(INSERT, name)
            assert (await innocent.jobs(1))[0].data["title"] == name


async def test_a_head_in_too_many_pieces_is_refused(dsn: str) -> None:
    async with run_server(make_settings(dsn)) as running, h2client(running.url) as client:
        await client.send(*empty_continuations(client, 0))
        await client.closed(30)
        assert client.goaway


async def test_a_client_that_answers_all_it_gets_is_never_sent_away(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    # It opens both windows for each DATA frame, as it comes: far more frames than h2_control_rate lets through.
    settings = make_settings(dsn, h2_control_rate=2)
    async with run_server(settings) as running, h2client(running.url) as client:
        streams = [await client.stream() for _ in range(20)]
        for number in range(30):
            await database.execute(INSERT, f"Job {number}")
            for stream in streams:
                assert (await stream.jobs(1))[0].data["title"] == f"Job {number}"
        for _ in range(100):
            assert (await (await client.get("/healthz")).response()).status == 200
        await client.get(STREAM)
        assert client.goaway is None


async def test_a_client_that_asks_now_and_then_whether_anybody_is_there_is_answered(dsn: str) -> None:
    async with run_server(make_settings(dsn)) as running, h2client(running.url) as client:
        for _ in range(300):
            await client.ping()
        assert client.goaway is None


async def test_many_requests_at_once_are_all_answered(dsn: str) -> None:
    # More frames than are read in one turn.
    async with run_server(make_settings(dsn)) as running, h2client(running.url) as client:
        asked = [client.asking("/healthz") for _ in range(200)]
        await client.send(*(request for _, request in asked))
        for exchange, _ in asked:
            assert (await exchange.response()).status == 200
        exchange, request = client.asking("/v1/jobs", "POST", {"content-type": "application/x-ndjson"}, ended=False)
        line = b'{"title": "Baker", "company": "Acme", "url": "https://acme.example"}\n'
        end = DataFrame(exchange.id, b"", flags=["END_STREAM"])
        await client.send(request, *[DataFrame(exchange.id, line)] * 500, end)
        assert (await exchange.response()).status == 200
