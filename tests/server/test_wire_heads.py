"""Heads that two parsers may understand differently are refused (RFC 9112, 2.2 and 5.2), however they come."""

import asyncio
import re

import pytest

from tests.conftest import Running
from tests.server.callers import HEALTH, Caller, calling

CHUNKED = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"

AMBIGUOUS = {
    "a folded field": REQUEST + b"X: a\r\n b\r\n\r\n",
    "a field folded with a tab": REQUEST + b"X: a\r\n\tb\r\n\r\n",
    "a fold that hides a length": b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX: a\r\n Content-Length: 40\r\n\r\n",
    "white space before the first field": b"GET /healthz HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "a bare LF behind the request line": b"GET /healthz HTTP/1.1\nHost: localhost\r\n\r\n",
    "a bare LF behind a field": REQUEST + b"X: a\nY: b\r\n\r\n",
    "bare LFs alone": b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
    "a head that ends with a bare LF": REQUEST + b"\n",
    "a head that ends with LF, CR, LF": REQUEST + b"X: a\n\r\n",
    "a bare LF behind an empty line": b"\r\n\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a bare LF in front": b"\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a fold in the trailers": b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\nX: a\r\n b\r\n\r\n",
    "a bare LF behind the size of a chunk": CHUNKED + b"1\na\r\n0\r\n\r\n",
    "a bare LF behind a chunk": CHUNKED + b"1\r\na\n0\r\n\r\n",
    "a length and chunks": CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "a list of lengths": b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1, 1\r\n\r\na",
    "a length with a sign": b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: +1\r\n\r\na",
    "chunks over HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
    "two codings": CHUNKED.replace(b": chunked", b": gzip, chunked") + b"0\r\n\r\n",
    "white space before a colon": b"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "two hosts": REQUEST + b"Host: other\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "NUL in a field": REQUEST + b"X: a\0b\r\n\r\n",
    "a bare CR in a field": REQUEST + b"X: a\rb\r\n\r\n",
    "a version of its own": b"GET /healthz HTTP/0.9\r\nHost: localhost\r\n\r\n",
}
"""Requests of which a proxy may see another part than we do."""


async def send(call: Caller, octets: bytes, size: int) -> None:
    """Send in pieces that arrive one by one."""
    for place in range(0, len(octets), size):
        call.writer.write(octets[place : place + size])
        await call.writer.drain()
        if size < len(octets):
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("size", [1, 10_000])
async def test_an_ambiguous_head_is_refused_and_nothing_behind_it_is_served(server: Running, size: int) -> None:
    for name, head in AMBIGUOUS.items():
        async with calling(server.url) as call:
            await send(call, head + HEALTH, size)
            said = await call.closed()
            # A body that turns out bad may have been answered by then, since its media type is missing.
            assert re.match(rb"HTTP/1\.1 (400 Bad Request|4|50[15])", said), name
            assert said.count(b"HTTP/1.1 ") == 1, name


@pytest.mark.parametrize("size", [1, 10_000])
async def test_ordinary_requests_are_read_however_they_come(server: Running, size: int) -> None:
    body = b'\n{"title": "Baker",\n "company": "Acme",\n "url": "https://acme.example"}\n \n'
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    fixed = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nX: trailer\r\n\r\n" % (len(body), body)
    async with calling(server.url) as call:
        for request in (fixed, chunked, fixed):
            await send(call, request, size)
            async with asyncio.timeout(20):
                answer = await call.reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 201")
                length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await call.reader.readexactly(length)
        await send(call, HEALTH * 3, size)
        for _ in range(3):
            assert (await call.reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_a_request_behind_a_body_in_chunks_is_read_from_its_first_octet(server: Running, size: int) -> None:
    body = b'{"title": "Baker", "company": "Acme", "url": "https://acme.example"}'
    head = CHUNKED[:-2] + b"Content-Type: application/json\r\n\r\n"
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in (body[:10], b"\r\n", body[10:]))
    async with calling(server.url) as call:
        await send(call, (head + chunks + b"0\r\nX: trailer\r\n\r\n") * 2 + HEALTH, size)
        async with asyncio.timeout(20):
            for status in (b"201 Created", b"201 Created", b"200 OK"):
                answer = await call.reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 " + status)
                length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await call.reader.readexactly(length)


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c", b"other/1"])
async def test_an_upgrade_that_is_not_followed_leaves_the_request_as_it_is(server: Running, upgrade: bytes) -> None:
    body = b'{"title": "Baker", "company": "Acme", "url": "https://acme.example"}'
    fields = b"Host: localhost\r\nConnection: upgrade\r\nUpgrade: %b\r\nContent-Type: application/json\r\n" % upgrade
    async with calling(server.url) as call:
        sent = b"POST /v1/jobs HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body)
        await send(call, sent * 2, 10_000)
        async with asyncio.timeout(20):
            for _ in range(2):
                answer = await call.reader.readuntil(b"\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 201 Created")
                length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await call.reader.readexactly(length)
        assert await call.served()
