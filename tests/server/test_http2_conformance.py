"""What RFC 9113 and RFC 7541 ask of a server, frame by frame: the ground that h2spec covers.

Faults that end no more than they may, and what others see of them, are in test_wire_faults.py; here it is the codes.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import pytest_asyncio
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.clones import Clones
from tests.h2client import PREFACE, H2Client, h2client
from tests.processes import serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROTOCOL, FLOW_CONTROL, STREAM_CLOSED, FRAME_SIZE, COMPRESSION = 1, 3, 5, 6, 9
WAIT = 30
# h2 says PROTOCOL_ERROR to both; RFC 9113 asks for COMPRESSION_ERROR (4.3) and FRAME_SIZE_ERROR (6.5). The connection ends
# either way.
UNDECODABLE = {COMPRESSION, PROTOCOL}
OVERFULL = {FRAME_SIZE, PROTOCOL}
Fault = Callable[[H2Client], Awaitable[None]]
GET = [(":method", "GET"), (":path", "/healthz"), (":scheme", "http"), (":authority", "feed")]
POST = [(":method", "POST"), (":path", "/v1/jobs"), (":scheme", "http"), (":authority", "feed")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(clones: Clones) -> AsyncIterator[str]:
    async with clones.one() as dsn, serving(dsn, log_format="json") as service:
        yield service.url
        assert b'"exception"' not in service.said


def raw(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """A frame as it goes over the wire, however wrong."""
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def frames(*some: Frame | bytes) -> Fault:
    async def fault(client: H2Client) -> None:
        await client.send(*some)

    return fault


def request(fields: list[tuple[str, str]], **more: Any) -> Fault:
    async def fault(client: H2Client) -> None:
        await client.send(client.headers(fields, **more))

    return fault


def block(encoded: bytes) -> Fault:
    """A request with this header block."""

    async def fault(client: H2Client) -> None:
        frame = client.headers([])
        frame.data = encoded
        await client.send(frame)

    return fault


def behind(end: bool, *made: Callable[[int], Frame | bytes]) -> Fault:
    """A request that is ended or not, and frames for its stream at once behind it."""

    async def fault(client: H2Client) -> None:
        head = client.headers(GET if end else POST, ended=end)
        await client.send(head, *(make(head.stream_id) for make in made))

    return fault


async def a_decreasing_stream(client: H2Client) -> None:
    skipped, used = client.headers(GET), client.headers(GET)
    await client.send(used)
    await client.exchanges[used.stream_id].response()
    skipped.data = used.data
    await client.send(skipped)


async def interleaved(client: H2Client) -> None:
    first, second = client.headers(GET), client.headers(GET)
    first.flags.discard("END_HEADERS")
    await client.send(first, second)


async def continued(client: H2Client, *between: Frame | bytes, stream: int | None = None) -> None:
    """A header block in two parts, with something else between them, or the rest for another stream."""
    head = client.headers(GET)
    first, rest = head.data[:5], head.data[5:]
    head.data = first
    head.flags.discard("END_HEADERS")
    await client.send(head, *between, ContinuationFrame(stream or head.stream_id, rest, flags=["END_HEADERS"]))


def a_block_with_between(*between: Frame | bytes, stream: int | None = None) -> Fault:
    async def fault(client: H2Client) -> None:
        await continued(client, *between, stream=stream)

    return fault


async def a_body_of_another_length(client: H2Client) -> None:
    head = client.headers([*POST, ("content-type", "application/json"), ("content-length", "2")], ended=False)
    await client.send(head, DataFrame(head.stream_id, b"[1]", flags=["END_STREAM"]))


async def a_body_that_is_too_short(client: H2Client) -> None:
    head = client.headers([*POST, ("content-type", "application/json"), ("content-length", "9")], ended=False)
    await client.send(head, DataFrame(head.stream_id, b"[1]", flags=["END_STREAM"]))


async def trailers_that_do_not_end(client: H2Client) -> None:
    head = client.headers(POST, ended=False)
    trailers = client.headers([("x", "y")], ended=False)
    trailers.stream_id = head.stream_id
    await client.send(head, trailers)


async def trailers_with_a_pseudo_header(client: H2Client) -> None:
    head = client.headers(POST, ended=False)
    trailers = client.headers([(":method", "GET")])
    trailers.stream_id = head.stream_id
    await client.send(head, trailers)


async def after_the_end(client: H2Client, frame: Frame | bytes) -> None:
    head = client.headers(GET)
    await client.send(head)
    await client.exchanges[head.stream_id].response()
    await client.send(frame)


def after_a_response(make: Callable[[int], Frame | bytes]) -> Fault:
    async def fault(client: H2Client) -> None:
        await after_the_end(client, make(1))

    return fault


HUGE = 2**31 - 1
ERRORS: dict[str, tuple[Fault, set[int]]] = {
    "4.2 DATA over the frame size": (behind(False, lambda s: raw(0, 0, s, bytes(16_385))), {FRAME_SIZE}),
    "4.2 HEADERS over the frame size": (frames(raw(1, 5, 1, bytes(16_385))), {FRAME_SIZE}),
    "4.3 a header block that cannot be decoded": (block(b"\x00\xff\xff\xff\xff\xff\xff\xff"), UNDECODABLE),
    "4.3 a block that ends in the middle": (block(b"\x40\x05x"), UNDECODABLE),
    "5.1 DATA on an idle stream": (frames(DataFrame(1, b"x")), {PROTOCOL}),
    "5.1 RST_STREAM on an idle stream": (frames(RstStreamFrame(1, 8)), {PROTOCOL}),
    "5.1 WINDOW_UPDATE on an idle stream": (frames(WindowUpdateFrame(1, 1)), {PROTOCOL}),
    "5.1 CONTINUATION on an idle stream": (frames(ContinuationFrame(1, b"\x82", flags=["END_HEADERS"])), {PROTOCOL}),
    "5.1 DATA on a stream that its client has ended": (behind(True, lambda s: DataFrame(s, b"x")), {STREAM_CLOSED}),
    "5.1 HEADERS on a stream that its client has ended": (
        behind(True, lambda s: HeadersFrame(s, b"\x82\x84\x86", flags=["END_HEADERS", "END_STREAM"])),
        {STREAM_CLOSED, PROTOCOL},
    ),
    "5.1 DATA on a stream that is over": (after_a_response(lambda s: DataFrame(s, b"x")), {STREAM_CLOSED}),
    "5.1 HEADERS on a stream that is over": (
        after_a_response(lambda s: HeadersFrame(s, b"\x82\x84\x86", flags=["END_HEADERS", "END_STREAM"])),
        {STREAM_CLOSED, PROTOCOL},
    ),
    "5.1 DATA on a stream that its client has reset": (
        behind(False, lambda s: RstStreamFrame(s, 8), lambda s: raw(0, 0, s + 2, b"x")), {PROTOCOL}
    ),
    "5.1.1 an even stream": (frames(HeadersFrame(2, b"\x82\x84\x86", flags=["END_HEADERS", "END_STREAM"])), {PROTOCOL}),
    "5.1.1 a stream below the last": (a_decreasing_stream, {PROTOCOL, STREAM_CLOSED}),
    "5.3.1 a stream that depends on itself": (
        frames(PriorityFrame(1, depends_on=1, stream_weight=1)), {PROTOCOL, 0}
    ),
    "5.5 an unknown frame inside of a header block": (a_block_with_between(raw(0xF1, 0, 0, b"what")), {PROTOCOL}),
    "6.1 DATA on stream 0": (frames(raw(0, 0, 0, b"x")), {PROTOCOL}),
    "6.1 DATA whose padding is longer than it is": (behind(False, lambda s: raw(0, 8, s, b"\x06abcd")), {PROTOCOL}),
    "6.1 DATA that is padded and empty": (behind(False, lambda s: raw(0, 8, s)), {PROTOCOL, FRAME_SIZE}),
    "6.2 HEADERS on stream 0": (frames(raw(1, 5, 0, b"\x82\x84\x86")), {PROTOCOL}),
    "6.2 HEADERS inside of a header block": (interleaved, {PROTOCOL}),
    "6.2 HEADERS whose padding is longer than they are": (frames(raw(1, 13, 1, b"\x09\x82\x84\x86")), {PROTOCOL}),
    "6.3 PRIORITY on stream 0": (frames(raw(2, 0, 0, bytes(5))), {PROTOCOL}),
    "6.3 PRIORITY of another length": (behind(False, lambda s: raw(2, 0, s, bytes(4))), {FRAME_SIZE}),
    "6.4 RST_STREAM on stream 0": (frames(raw(3, 0, 0, bytes(4))), {PROTOCOL}),
    "6.4 RST_STREAM of another length": (behind(False, lambda s: raw(3, 0, s, bytes(3))), {FRAME_SIZE}),
    "6.5 an acknowledgement with content": (frames(raw(4, 1, 0, bytes(6))), OVERFULL),
    "6.5 SETTINGS on a stream": (frames(raw(4, 0, 1)), {PROTOCOL}),
    "6.5 SETTINGS of another length": (frames(raw(4, 0, 0, bytes(3))), {FRAME_SIZE}),
    "6.5.2 ENABLE_PUSH neither 0 nor 1": (frames(SettingsFrame(settings={2: 2})), {PROTOCOL}),
    "6.5.2 a window too wide": (frames(SettingsFrame(settings={4: 2**31})), {FLOW_CONTROL}),
    "6.5.2 a frame size too small": (frames(SettingsFrame(settings={5: 16_383})), {PROTOCOL}),
    "6.5.2 a frame size too large": (frames(SettingsFrame(settings={5: 2**24})), {PROTOCOL}),
    "6.6 PUSH_PROMISE of a client": (behind(False, lambda s: raw(5, 4, s, bytes((0, 0, 0, 2)) + b"\x82")), {PROTOCOL}),
    "6.7 PING on a stream": (frames(raw(6, 0, 1, bytes(8))), {PROTOCOL}),
    "6.7 PING of another length": (frames(raw(6, 0, 0, bytes(7))), {FRAME_SIZE}),
    "6.8 GOAWAY on a stream": (frames(raw(7, 0, 1, bytes(8))), {PROTOCOL}),
    "6.9 no window": (frames(raw(8, 0, 0, bytes(4))), {PROTOCOL}),
    "6.9 no window for a stream": (behind(False, lambda s: raw(8, 0, s, bytes(4))), {PROTOCOL}),
    "6.9 WINDOW_UPDATE of another length": (frames(raw(8, 0, 0, bytes(3))), {FRAME_SIZE}),
    "6.9.1 windows that overflow": (frames(WindowUpdateFrame(0, HUGE), WindowUpdateFrame(0, HUGE)), {FLOW_CONTROL}),
    "6.9.1 a window of a stream that overflows": (behind(False, lambda s: WindowUpdateFrame(s, HUGE)), {FLOW_CONTROL}),
    "6.9.2 a setting by which a window overflows": (
        behind(False, lambda s: WindowUpdateFrame(s, 1), lambda _: SettingsFrame(settings={4: HUGE})), {FLOW_CONTROL}
    ),
    "6.10 CONTINUATION behind a whole head": (
        behind(False, lambda s: ContinuationFrame(s, b"\x82", flags=["END_HEADERS"])), {PROTOCOL}
    ),
    "6.10 CONTINUATION behind DATA": (
        behind(False, lambda s: DataFrame(s, b"x"), lambda s: ContinuationFrame(s, b"\x82", flags=["END_HEADERS"])),
        {PROTOCOL},
    ),
    "6.10 CONTINUATION on stream 0": (a_block_with_between(raw(9, 4, 0, b"\x82")), {PROTOCOL}),
    "6.10 CONTINUATION of another stream": (a_block_with_between(stream=7), {PROTOCOL}),
    "6.10 PING inside of a header block": (a_block_with_between(PingFrame(opaque_data=b"feedfeed")), {PROTOCOL}),
    "8.1 trailers that do not end": (trailers_that_do_not_end, {PROTOCOL}),
    "8.1.1 a body over its length": (a_body_of_another_length, {PROTOCOL}),
    "8.1.1 a body under its length": (a_body_that_is_too_short, {PROTOCOL}),
    "8.2.1 a name in upper case": (request([*GET, ("X-Name", "x")]), {PROTOCOL}),
    "8.2.2 Connection": (request([*GET, ("connection", "keep-alive")]), {PROTOCOL}),
    "8.2.2 Transfer-Encoding": (request([*POST, ("transfer-encoding", "chunked")]), {PROTOCOL}),
    "8.2.2 TE but trailers": (request([*GET, ("te", "trailers, deflate")]), {PROTOCOL}),
    "8.3 an unknown pseudo-header": (request([*GET, (":x", "y")]), {PROTOCOL}),
    "8.3 a pseudo-header of responses": (request([*GET, (":status", "200")]), {PROTOCOL}),
    "8.3 a pseudo-header in trailers": (trailers_with_a_pseudo_header, {PROTOCOL}),
    "8.3 a pseudo-header behind a field": (request([*GET[:3], ("x", "y"), GET[3]]), {PROTOCOL}),
    "8.3.1 an empty path": (request([GET[0], (":path", ""), *GET[2:]]), {PROTOCOL}),
    "8.3.1 no method": (request(GET[1:]), {PROTOCOL}),
    "8.3.1 no scheme": (request([GET[0], GET[1], GET[3]]), {PROTOCOL}),
    "8.3.1 no path": (request([GET[0], *GET[2:]]), {PROTOCOL}),
    "8.3.1 the method twice": (request([GET[0], *GET]), {PROTOCOL}),
    "8.3.1 the scheme twice": (request([*GET, GET[2]]), {PROTOCOL}),
    "8.3.1 the path twice": (request([*GET, GET[1]]), {PROTOCOL}),
    "HPACK 2.3.3 an index beyond the tables": (block(b"\xff\x00"), UNDECODABLE),
    "HPACK 4.2 a table size behind a field": (block(b"\x82\x20\x84\x86"), UNDECODABLE),
    "HPACK 5.2 Huffman padding of over seven bits": (
        block(b"\x82\x84\x86\x00\x85\xf2\xb2\x4a\x84\xff\x82\x49\x50"), UNDECODABLE
    ),
    "HPACK 5.2 Huffman with the end of a string": (
        block(b"\x82\x84\x86\x00\x85\xf2\xb2\x4a\x87\xff\xff\xff\x7f"), UNDECODABLE
    ),
    "HPACK 6.1 index 0": (block(b"\x80"), UNDECODABLE),
    "HPACK 6.3 a table larger than allowed": (block(b"\x3f\xe1\xff\x03\x82\x84\x86"), UNDECODABLE),
}  # fmt: skip


@pytest.mark.parametrize(("fault", "codes"), ERRORS.values(), ids=ERRORS)
async def test_a_fault_is_answered_with_the_code_for_it(url: str, fault: Fault, codes: set[int]) -> None:
    async with h2client(url) as client:
        await client.ping()

        def told() -> set[int]:
            streams = {one.error for one in client.exchanges.values() if one.error is not None}
            return streams | ({client.goaway} if client.goaway is not None else set())

        with suppress(ConnectionError):
            await fault(client)
            await client.send(PingFrame(opaque_data=b"after it"))
        before = client.came.count(("PING", 0))
        with suppress(ConnectionError):
            await client.until(lambda: told() or client.came.count(("PING", 0)) > before, WAIT)
        if not told() and 0 in codes:
            return  # it may be ignored
        assert told() & codes, (told(), client.came[-10:])


async def answered(client: H2Client) -> None:
    response = await (await client.get("/healthz")).response()
    assert response.status == 200
    assert client.goaway is None


async def test_settings_are_acknowledged_and_unknown_ones_ignored(url: str) -> None:
    async with h2client(url, settings={3: 7, 0xF1F1: 5}) as client:
        await client.until(lambda: client.came.count(("SETTINGS", 0)) == 1, WAIT)  # the acknowledgement
        await client.send(SettingsFrame(settings={0xABCD: 1}))
        await client.until(lambda: client.came.count(("SETTINGS", 0)) == 2, WAIT)
        await answered(client)


async def test_the_first_frame_of_the_server_is_its_settings(url: str) -> None:
    async with h2client(url) as client:
        await client.until(lambda: client.settings, WAIT)
        assert client.settings[3] > 0
        assert set(client.came) <= {("SETTINGS", 0), ("WINDOWUPDATE", 0)}


async def test_a_ping_comes_back_as_it_was_and_an_answer_to_none_is_ignored(url: str) -> None:
    async with h2client(url) as client:
        answers: list[PingFrame] = []
        take = client._take

        def noted(frame: Frame) -> bytes:
            if isinstance(frame, PingFrame):
                answers.append(frame)
            return take(frame)

        client._take = noted  # type: ignore[method-assign]
        await client.send(
            PingFrame(opaque_data=b"nobodys!", flags=["ACK"]), PingFrame(opaque_data=b"\0\1\2\3\4\5\6\xff")
        )
        await client.until(lambda: answers, WAIT)
        await client.ping()
        assert [(one.opaque_data, "ACK" in one.flags) for one in answers] == [
            (b"\0\1\2\3\4\5\6\xff", True), (b"feedfeed", True),
        ]  # fmt: skip


async def padded_with_priority(client: H2Client) -> None:
    head = client.headers([])
    await client.send(raw(1, 0x2D, head.stream_id, b"\x03\0\0\0\0\x10\x82\x84\x86\x01\x04feed\0\0\0"))


IGNORED: dict[str, Fault] = {
    "4.1 flags that mean nothing": frames(raw(6, 0x16, 0, bytes(8))),
    "4.1 the reserved bit of a stream": frames(raw(6, 0, 2**31, bytes(8))),
    "5.5 a frame of an unknown kind": frames(raw(0xF1, 0xFF, 0, b"what"), raw(0x0A, 0, 9, bytes(100))),
    "6.3 PRIORITY for an idle stream": frames(PriorityFrame(99, depends_on=3, stream_weight=1)),
    "6.9 WINDOW_UPDATE on a stream that is over": after_a_response(lambda s: WindowUpdateFrame(s, 1)),
    "5.1 RST_STREAM on a stream that is over": after_a_response(lambda s: RstStreamFrame(s, 8)),
    "5.1 PRIORITY on a stream that is over": after_a_response(
        lambda s: PriorityFrame(s, depends_on=0, stream_weight=1)
    ),
    "6.9.2 a window that is made negative": frames(SettingsFrame(settings={4: 0}), SettingsFrame(settings={4: 65_535})),
    "8.2.2 TE: trailers": request([*GET, ("te", "trailers")]),
    "8.2.3 cookies in parts": request([*GET, ("cookie", "a=b"), ("cookie", "c=d")]),
    "6.2 HEADERS with padding and priority": padded_with_priority,
    "6.10 a head in parts": a_block_with_between(),
    "HPACK 4.2 a table size in front": block(b"\x20\x82\x84\x86\x01\x04feed"),
    "HPACK 6.3 two table sizes in front": block(b"\x20\x3f\xe1\x1f\x82\x84\x86\x01\x04feed"),
}


@pytest.mark.parametrize("sent", IGNORED.values(), ids=IGNORED)
async def test_what_is_allowed_leaves_the_connection_as_it_was(url: str, sent: Fault) -> None:
    async with h2client(url) as client:
        await sent(client)
        await answered(client)
        assert all(one.error is None for one in client.exchanges.values())


async def test_data_keeps_to_the_window_and_goes_on_when_it_opens(url: str) -> None:
    async with h2client(url, settings={4: 1}) as client:
        client.shut = {1}
        exchange = await client.get("/healthz")
        await client.until(lambda: exchange.body, WAIT)
        await client.ping()
        assert len(exchange.body) == 1
        await client.send(SettingsFrame(settings={4: 4}))  # for open streams too (6.9.2)
        await client.until(lambda: len(exchange.body) > 1, WAIT)
        await client.ping()
        assert len(exchange.body) == 4
        await client.send(SettingsFrame(settings={4: 0}))  # the window is now below nothing
        await client.send(WindowUpdateFrame(1, 4))
        await client.ping()
        assert len(exchange.body) == 4
        await client.send(WindowUpdateFrame(1, 1000))
        assert (await exchange.json())["alive"] is True


async def test_frames_are_no_larger_than_the_client_takes(url: str) -> None:
    async with h2client(url, settings={4: 2**20}) as client:
        sizes: list[int] = []
        take = client._take
        client._take = lambda frame: (
            sizes.append(len(frame.data)) if isinstance(frame, DataFrame) else None,
            take(frame),
        )[1]  # type: ignore[method-assign]
        await (await client.get("/openapi.json")).response()
        assert sum(sizes) > 16_384 >= max(sizes)


async def test_the_fields_of_a_response_are_in_lower_case_and_none_is_of_the_connection(url: str) -> None:
    async with h2client(url) as client:
        exchange = await (await client.get("/healthz", fields={"x-request-id": "Abc"})).response()
        names = list(exchange.headers)
        assert names[0] == ":status"
        assert all(name == name.lower() for name in names)
        assert not {"connection", "transfer-encoding", "keep-alive", "upgrade"} & set(names)


async def test_a_preface_that_ends_as_none_does_ends_the_connection(url: str) -> None:
    async with h2client(url, preface=False) as client:
        await client.send(PREFACE[:-6] + b"XX\r\n\r\n" + raw(4, 0, 0))
        await client.closed(WAIT)
        assert client.goaway in (None, PROTOCOL)
