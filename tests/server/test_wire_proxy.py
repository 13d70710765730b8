"""The PROXY protocol on the wire: the client is whom the proxy names, over HTTP/1.1 and HTTP/2, or nobody is served."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hyperframe.frame import SettingsFrame

from feed.app import Application
from feed.errors import ConfigurationError
from feed.serving.certificate import self_signed
from feed.settings.settings import Settings
from tests.conftest import make_settings, run_server
from tests.h2client import PREFACE, H2Client
from tests.proxy_headers import INET, INET6, v2

LINE = b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 443\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: feed\r\n\r\n"
HEADERS = {
    "version 1": (LINE, ("192.0.2.1", 4711)),
    "version 2": (v2(1, 0x11, INET), ("192.0.2.1", 4711)),
    "IPv6": (v2(1, 0x21, INET6), ("2001:db8::1", 4711)),
    "the proxy itself": (v2(0, 0x00, b""), None),
    "an unknown family": (b"PROXY UNKNOWN\r\n", None),
}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The scopes of all requests."""
    found: list[dict[str, Any]] = []
    call = Application.__call__

    async def noted(self: Application, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            found.append(dict(scope))
        await call(self, scope, receive, send)

    monkeypatch.setattr(Application, "__call__", noted)
    return found


def behind(dsn: str, trusted: str = "127.0.0.0/8", **more: Any) -> Settings:
    return make_settings(dsn, proxy_protocol=True, trusted_proxies=(ip_network(trusted),), **more)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def answer(reader: asyncio.StreamReader) -> bytes:
    """What comes until the end, or until the answer is there."""
    said = b""
    async with asyncio.timeout(30):
        with suppress(ConnectionError):
            while b"}" not in said and (piece := await reader.read(65_536)):
                said += piece
    return said


@pytest.mark.parametrize("pieces", [False, True], ids=["at once", "in pieces"])
@pytest.mark.parametrize(("header", "client"), HEADERS.values(), ids=HEADERS)
async def test_over_http1_the_client_is_whom_the_proxy_names(
    dsn: str, seen: list[dict[str, Any]], header: bytes, client: tuple[str, int] | None, pieces: bool
) -> None:
    async with run_server(behind(dsn)) as running, connected(running.url) as (reader, writer):
        if pieces:
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for octet in header:
                writer.write(bytes([octet]))
                await asyncio.sleep(0)
            writer.write(HEALTH)
        else:
            writer.write(header + HEALTH)
        assert (await answer(reader)).startswith(b"HTTP/1.1 200")
        assert seen[0]["client"] == (client or writer.get_extra_info("sockname"))
        assert seen[0]["server"][0] == (
            "127.0.0.1" if client is None else {"192.0.2.1": "198.51.100.1"}.get(client[0], "2001:db8::2")
        )


@pytest.mark.parametrize(("header", "client"), HEADERS.values(), ids=HEADERS)
async def test_over_http2_the_client_is_whom_the_proxy_names(
    dsn: str, seen: list[dict[str, Any]], header: bytes, client: tuple[str, int] | None
) -> None:
    async with run_server(behind(dsn)) as running, connected(running.url) as (reader, writer):
        http2 = H2Client(reader, writer, running.url)
        await http2.send(header, PREFACE, SettingsFrame())
        for _ in range(2):
            assert (await (await http2.get("/healthz")).response()).status == 200
        assert [scope["client"] for scope in seen] == [client or writer.get_extra_info("sockname")] * 2
        assert seen[0]["http_version"] == "2"


@pytest.mark.parametrize(
    "sent",
    [HEALTH, PREFACE, b"PROXY TCP4 nonsense 198.51.100.1 4711 443\r\n" + HEALTH, b"PROXY " + b"x" * 500,
     v2(1, 0x11, INET[:5]) + HEALTH, struct.pack("!12sBBH", b"\r\n\r\n\x00\r\nQUIT\n", 0x21, 0x11, 60_000) + bytes(60_000)],
    ids=["no header", "no header, HTTP/2", "no address", "no end", "too short", "too long"],
)  # fmt: skip
async def test_a_proxy_that_sends_no_good_header_is_hung_up_on(
    dsn: str, seen: list[dict[str, Any]], sent: bytes
) -> None:
    async with run_server(behind(dsn)) as running:
        async with connected(running.url) as (reader, writer):
            writer.write(sent)
            assert await answer(reader) == b""
        async with connected(running.url) as (reader, writer):
            writer.write(LINE + HEALTH)
            assert (await answer(reader)).startswith(b"HTTP/1.1 200")
        assert len(seen) == 1


@pytest.mark.parametrize("sent", [b"", LINE[:20], v2(1, 0x11, INET)[:20]])
async def test_a_header_that_does_not_come_is_not_waited_for(dsn: str, sent: bytes) -> None:
    async with run_server(behind(dsn, handshake_timeout=0.5)) as running, connected(running.url) as (reader, writer):
        writer.write(sent)
        assert await answer(reader) == b""


async def test_strangers_are_no_proxies(dsn: str, seen: list[dict[str, Any]]) -> None:
    async with run_server(behind(dsn, "192.0.2.0/24")) as running:
        async with connected(running.url) as (reader, writer):
            writer.write(LINE + HEALTH)
            assert (await answer(reader)).startswith(b"HTTP/1.1 501")  # there is no method `PROXY`
        async with connected(running.url) as (reader, writer):
            writer.write(HEALTH)
            assert (await answer(reader)).startswith(b"HTTP/1.1 200")
            assert [scope["client"] for scope in seen] == [writer.get_extra_info("sockname")]


async def test_it_goes_with_trusted_proxies_and_without_tls(dsn: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="FEED_TRUSTED_PROXIES"):
        make_settings(dsn, proxy_protocol=True)
    certfile, keyfile = self_signed(tmp_path, "127.0.0.1")
    with pytest.raises(ConfigurationError, match="plain connections"):
        behind(dsn, certfile=certfile, keyfile=keyfile)
    with pytest.raises(ConfigurationError, match="FEED_WIRE"):
        behind(dsn, wire=False)
