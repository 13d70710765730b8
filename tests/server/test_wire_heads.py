"""Heads that two parsers may understand differently are refused (RFC 9112, 2.2 and 5.2), however they come."""

import asyncio

import pytest

from tests.conftest import Running
from tests.server.callers import HEALTH, Caller, calling

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
    "a bare LF in front": b"\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a fold in the trailers": b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\nX: a\r\n b\r\n\r\n",
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
            assert said.startswith(b"HTTP/1.1 400") or ("trailers" in name and b"HTTP/1.1 4" in said), name
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
