"""Limits of connections: how many, how fast, how long they may take to say what they want, and how much they may say."""

import asyncio
import json
import socket
from contextlib import AsyncExitStack, suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypercorn.config import Config
from hyperframe.frame import DataFrame, HeadersFrame

from feed.errors import ConfigurationError
from feed.serving.certificate import self_signed
from tests.conftest import make_settings, run_server
from tests.h2client import ENHANCE_YOUR_CALM, NO_ERROR, h2client
from tests.processes import serving
from tests.reader import reading
from tests.server.callers import HEALTH, calling
from tests.server.connections import server_side
from tests.waiting import until


def limited(dsn: str, **settings: Any) -> Any:
    """Settings under which nobody is exempt."""
    return make_settings(dsn, **{"limits_exempt": (), **settings})


async def test_an_address_has_so_many_connections_and_others_have_their_own(dsn: str) -> None:
    async with run_server(limited(dsn, connections_per_address=3)) as running, AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(calling(running.url)) for _ in range(3)]
        assert all([await call.served() for call in calls])
        for _ in range(3):
            async with calling(running.url) as over:
                assert not await over.served()
        async with calling(running.url, "127.0.0.2") as other:
            assert await other.served()
        calls[0].writer.transport.abort()

        async def let_in() -> bool:
            async with calling(running.url) as again:
                return await again.served()

        await until(let_in)
        assert await calls[1].served()


async def test_an_address_may_connect_so_often(dsn: str) -> None:
    async with run_server(limited(dsn, connection_rate="5/hour")) as running:
        for count in range(8):
            async with calling(running.url) as call:
                assert await call.served() == (count < 5)
        async with calling(running.url, "127.0.0.2") as other:
            assert await other.served()


@pytest.mark.parametrize("setting", ["limits_exempt", "trusted_proxies"])
async def test_networks_that_are_exempt_and_proxies_are_not_limited(dsn: str, setting: str) -> None:
    networks = {setting: (ip_network("127.0.0.0/8"),)}
    settings = limited(dsn, connections_per_address=2, connection_rate="2/hour", **networks)
    async with run_server(settings) as running, AsyncExitStack() as stack:
        for _ in range(6):
            assert await (await stack.enter_async_context(calling(running.url))).served()


async def test_over_tls_too_many_are_refused_before_the_handshake(dsn: str, tmp_path: Path) -> None:
    certfile, keyfile = self_signed(tmp_path, "127.0.0.1")
    settings = limited(dsn, connections_per_address=1, certfile=certfile, keyfile=keyfile)
    async with run_server(settings) as running, h2client(running.url) as first:
        assert (await (await first.get("/healthz")).response()).status == 200
        async with calling(running.url) as second:
            assert await second.closed() == b""  # nothing had to be said


async def test_those_who_are_refused_are_logged_in_one_line(dsn: str, capfd: pytest.CaptureFixture[str]) -> None:
    said = ""

    def lines() -> list[dict[str, Any]]:
        nonlocal said
        said += capfd.readouterr().err
        return [entry for entry in map(json.loads, said.splitlines()) if entry["event"] == "connections refused"]

    async with run_server(limited(dsn, connections_per_address=1)) as running, calling(running.url) as first:
        assert await first.served()
        for _ in range(50):
            async with calling(running.url) as over:
                assert not await over.served()
        await until(lambda: sum(line["too_many"] for line in lines()) == 50)
        assert len(lines()) < 25
        assert lines()[0]["last"] == "127.0.0.1"
        assert lines()[0]["level"] == "warning"


async def test_a_handshake_that_never_comes_is_not_waited_for(dsn: str, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, "127.0.0.1")
    async with serving(dsn, certificate=certificate, handshake_timeout=0.5) as service:
        async with calling(service.url) as silent, calling(service.url) as slow:
            slow.writer.write(bytes.fromhex("16030100c8"))
            assert await silent.closed() == b""
            await slow.closed()
        async with reading(service.url, http2=True, verify=False) as reader:
            await reader.until("synced")
        assert service.said == b""


@pytest.mark.parametrize("text", [b"x", b"GET / HTTP/1.1\r\nHost: feed\r\n" + b"X: y\r\n" * 2_000])
async def test_a_head_that_dribbles_in_has_its_time_and_no_more(
    dsn: str, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    monkeypatch.setattr(Config, "keep_alive_timeout", 1.0)
    async with run_server(make_settings(dsn)) as running:
        async with calling(running.url) as first:
            await first.dribbles(text)
        async with calling(running.url) as second:
            assert await second.served()
            await second.dribbles(text)  # nor has one behind another
            assert not await second.served()


async def test_an_http2_head_that_dribbles_in_has_its_time_and_no_more(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Config, "keep_alive_timeout", 1.0)
    async with run_server(make_settings(dsn)) as running, h2client(running.url) as client:
        _, request = client.asking("/healthz")
        request.flags.discard("END_HEADERS")
        head = HeadersFrame(request.stream_id, request.data).serialize()
        async with asyncio.timeout(40):
            for octet in head[:-1]:
                with suppress(TimeoutError, ConnectionError):
                    await client.send(bytes([octet]))
                    await client.until(lambda: client.over, 0.1)
            await client.closed(30)


async def test_an_upload_that_nobody_reads_keeps_no_connection(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "keep_alive_timeout", 0.5)
    async with run_server(make_settings(dsn, send_timeout=0.5)) as running, h2client(running.url) as client:
        exchange = await client.get("/nowhere", "POST", ended=False)
        await client.until(lambda: exchange.ended)
        async with asyncio.timeout(40):
            while not client.over and exchange.error is None:
                with suppress(TimeoutError, ConnectionError):
                    await client.send(DataFrame(exchange.id, b"x"))
                    await client.until(lambda: client.over or exchange.error is not None, 0.05)
        assert exchange.error in (None, NO_ERROR)
        await client.closed(30)


async def test_a_head_over_its_bound_is_refused(dsn: str) -> None:
    fields = {f"x-{number}": "y" * 500 for number in range(10)}
    async with run_server(make_settings(dsn, header_bytes=4096)) as running:
        async with h2client(running.url) as client:
            assert (
                await (await client.get("/healthz", fields=dict(list(fields.items())[:5]))).response()
            ).status == 200
            await client.get("/healthz", fields=fields)
            await client.closed()
            assert client.goaway == ENHANCE_YOUR_CALM
        async with calling(running.url) as call:
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            call.writer.write(f"GET /healthz HTTP/1.1\r\nHost: feed\r\n{head}".encode())
            assert (await call.closed()).startswith(b"HTTP/1.1 431")
        async with calling(running.url) as call:
            assert await call.served()


async def test_a_connection_that_is_over_is_not_counted_however_it_ended(dsn: str, tmp_path: Path) -> None:
    certfile, keyfile = self_signed(tmp_path, "127.0.0.1")
    settings = limited(dsn, connections_per_address=4, certfile=certfile, keyfile=keyfile, handshake_timeout=1)
    async with run_server(settings) as running:
        ports = []
        for kind in ("reset", "end", "garbage", "silence") * 3:

            async def open_one() -> bool:
                async with calling(running.url) as call:
                    if kind == "garbage":
                        call.writer.write(b"no TLS at all\r\n\r\n")
                    elif kind == "end":
                        call.writer.write_eof()
                    elif kind == "silence":
                        await call.closed()
                    ports.append(call.writer.get_extra_info("sockname")[1])
                return True

            await open_one()
        await until(lambda: not any("01" in server_side(running.url, port) for port in ports))

        async def let_in() -> bool:
            async with AsyncExitStack() as stack:
                try:
                    for _ in range(4):
                        client = await stack.enter_async_context(h2client(running.url))
                        await client.ping()
                except (OSError, asyncio.IncompleteReadError):
                    return False
                return True

        await until(let_in)


@pytest.mark.parametrize("name", ["connection_rate", "stream_rate", "write_rate", "read_rate", "denied_rate"])
async def test_a_service_with_a_rate_that_is_none_does_not_start(dsn: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}: 'often' is no rate"):
        async with run_server(make_settings(dsn, **{name: "often"})):
            pass


async def test_a_listener_that_has_no_file_left_goes_on_when_there_are_some(
    dsn: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with run_server(make_settings(dsn)) as running:
        none, accept = True, socket.socket.accept

        def scarce(self: socket.socket) -> Any:
            if none:
                raise OSError(24, "Too many open files")
            return accept(self)

        monkeypatch.setattr(socket.socket, "accept", scarce)
        async with calling(running.url) as call:
            call.writer.write(HEALTH)
            said = ""

            def told() -> bool:
                nonlocal said
                said += capfd.readouterr().err
                return "Too many open files" in said

            await until(told)
            none = False
            assert await call.served()
