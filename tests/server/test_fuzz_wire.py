"""Arbitrary bytes on a real connection, over and over: the service stays up, says nothing of it, and forgets all of it."""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import tries
from tests.h2client import PREFACE, STREAM, h2client
from tests.processes import ServiceProcess, serving
from tests.server.faults import TERM
from tests.server.memory import open_streams
from tests.waiting import until

_QUIET = 0.02
"""Seconds without an answer after which the next bytes are sent; most of what is sent gets none."""

pieces = st.binary(max_size=200)
paths = st.sampled_from([STREAM, "/v1/jobs", "/healthz", "/", "*", "/v1/jobs/1", "/%00", "http://x/healthz", ""])
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "PRI", "get", "G\0T", ""])
header_names = st.sampled_from(
    ["Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "HTTP2-Settings", "Expect", "Last-Event-ID",
     "Content-Type", "Authorization", "Cookie", "Forwarded", "X-Forwarded-For", "Origin", "TE", "Te\0", " x", "x y", ""]
)  # fmt: skip
header_values = st.one_of(
    st.sampled_from(
        ["feed", "0", "3", "-1", "99999999999999999999", "chunked", "gzip, chunked", "close", "upgrade", "h2c", "websocket",
         "100-continue", "trailers", "Bearer x", "for=1.2.3.4;proto=https", "1.2.3.4, 5.6.7.8", "AAMAAABkAAQAoAAAAAIAAAAA"]
    ),
    st.text(st.characters(max_codepoint=255), max_size=30),
)  # fmt: skip
ends = st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r"])


def _request(line: tuple[str, str, str], fields: Sequence[tuple[str, str]], end: str, body: bytes) -> bytes:
    head = end.join([" ".join(line), *(f"{name}: {value}" for name, value in fields), "", ""])
    return head.encode("latin-1", "replace") + body


http1 = st.builds(
    _request,
    st.tuples(methods, paths, st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9", ""])),
    st.lists(st.tuples(header_names, header_values), max_size=6).map(lambda some: [("Host", "feed"), *some]),
    ends,
    st.one_of(
        st.just(b""),
        pieces,
        st.sampled_from([b"0\r\n\r\n", b"5\r\n[{}]\n\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"zz"]),
    ),
)

_REQUEST = Encoder().encode(
    [(":method", "GET"), (":path", STREAM), (":scheme", "http"), (":authority", "feed")], huffman=False
)
field_names = st.sampled_from(
    [
        ":method",
        ":path",
        ":scheme",
        ":authority",
        ":status",
        "te",
        "x",
        "X",
        "content-length",
        "connection",
        "cookie",
        "",
    ]
)
fields = st.lists(st.tuples(field_names, st.one_of(paths, methods, header_values)), max_size=6)


def _block(some: Sequence[tuple[str, str]]) -> bytes:
    """A header block, literally: it changes no table."""
    return Encoder().encode([(name.encode(), value.encode("latin-1"), True) for name, value in some])


blocks = st.one_of(st.just(_REQUEST), pieces, fields.map(_block))


def _frame(kind: int, flags: int, stream: int, body: bytes, length: int | None) -> bytes:
    size = len(body) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


streams = st.sampled_from([0, 1, 1, 3, 5, 2, 2**31 - 1, 2**32 - 1])
settings = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 2**32 - 1)), max_size=4).map(
    lambda some: b"".join(name.to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in some)
)
frames = st.one_of(
    st.builds(_frame, st.integers(0, 12), st.integers(0, 255), streams, pieces, st.none() | st.integers(0, 2**24 - 1)),
    st.builds(_frame, st.just(1), st.sampled_from([4, 5, 5, 0, 0x2D]), streams, blocks, st.none()),
    st.builds(_frame, st.just(1), st.sampled_from([4, 5]), st.sampled_from([3, 5, 7]), fields.map(_block), st.none()),
    st.builds(_frame, st.just(9), st.sampled_from([0, 4]), streams, blocks, st.none()),
    st.builds(_frame, st.just(0), st.sampled_from([0, 1, 8]), streams, pieces, st.none()),
    st.builds(_frame, st.just(4), st.sampled_from([0, 0, 1]), st.just(0), settings, st.none()),
    st.builds(
        _frame,
        st.just(8),
        st.just(0),
        streams,
        st.integers(0, 2**32 - 1).map(lambda n: n.to_bytes(4, "big")),
        st.none(),
    ),
    st.builds(_frame, st.sampled_from([3, 6, 7]), st.just(0), streams, st.binary(min_size=4, max_size=8), st.none()),
)
# Most begin well: what comes behind an open stream reaches further.
opening = st.sampled_from([b"", _frame(1, 5, 1, _REQUEST, None), _frame(1, 4, 1, _REQUEST, None)])
http2 = st.builds(
    lambda first, some: b"".join([PREFACE, _frame(4, 0, 0, b"", None), first, *some]),
    opening,
    st.lists(frames, min_size=1, max_size=8),
)
sendings = st.lists(st.one_of(http2, http1, st.lists(frames, max_size=4).map(b"".join), pieces), min_size=1, max_size=4)


def _send(url: str, sending: Sequence[bytes], leaving: str) -> None:
    """Send it, take what comes meanwhile, and leave."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), 30) as sock, suppress(OSError):
        for piece in sending:
            sock.settimeout(30)
            sock.sendall(piece)
            sock.settimeout(_QUIET)
            with suppress(TimeoutError):
                if not sock.recv(65536):
                    return
        if leaving == "half-close":
            sock.shutdown(socket.SHUT_WR)
            sock.recv(65536)


async def test_arbitrary_bytes_neither_take_the_service_down_nor_are_worth_a_traceback(dsn: str) -> None:
    async with serving(dsn, log_format="json") as service:

        @tries(250)
        @given(sendings, st.sampled_from(["close", "half-close"]))
        def attack(sending: list[bytes], leaving: str) -> None:
            _send(service.url, sending, leaving)

        await asyncio.to_thread(attack)
        await _forgotten(service)
        async with h2client(service.url) as client:
            await client.stream()
        service.signal(TERM)
        assert await service.ended() == 0
        await service.gone()
        for line in service.said.splitlines():
            assert line.startswith(b"{"), line
            assert b'"exception"' not in line and b'"level": "error"' not in line, line.decode()


async def _forgotten(service: ServiceProcess) -> None:
    """Wait until no stream is left of any of them."""

    async def none() -> bool:
        return await open_streams(service.url) == 0

    await until(none, 60)
