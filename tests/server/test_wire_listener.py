"""What connections inherit from the listener, and clients of whom nothing is heard any more."""

import asyncio
import ctypes
import itertools
import os
import resource
import socket
import struct
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from feed.hypercorn_adapter import listener
from feed.hypercorn_adapter.config import ListeningSocket
from feed.serving.certificate import self_signed
from tests.conftest import make_settings, run_server
from tests.h2client import STREAM, h2client
from tests.processes import serving
from tests.raw import raw_reading
from tests.reader import reading
from tests.server.connections import server_side
from tests.server.memory import open_streams
from tests.server.postings import INSERT
from tests.waiting import until


def accepted(port: int) -> socket.socket:
    """A copy of this process's end of the connection that comes from a client's `port`."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if not str(entry.readlink()).startswith("socket:"):
                continue
            copy = socket.socket(fileno=os.dup(int(entry.name)))
            with suppress(OSError):
                if copy.family == socket.AF_INET and copy.getpeername()[1] == port:
                    return copy
            copy.close()
    raise AssertionError(f"no connection from {port}")


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
async def test_accepted_connections_notice_silence_and_hold_little(dsn: str, address: str) -> None:
    settings = make_settings(dsn, host=address, peer_timeout=12, send_buffer=48 * 1024)
    async with run_server(settings) as running, raw_reading(running.url) as reader:
        with accepted(reader.sock.getsockname()[1]) as ours:
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, interval, count = (
                ours.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert 6 <= idle + interval * count <= 18
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 12_000
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 48 * 1024


class _Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


def black_hole(sock: Any) -> None:
    """Whatever comes for a client's socket is lost before TCP sees it: a BPF filter that keeps 0 octets (socket(7))."""
    drop = _Filter(0x06, 0, 0, 0)  # BPF_RET | BPF_K
    sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", 1, ctypes.addressof(drop)))  # SO_ATTACH_FILTER


@pytest.mark.parametrize(("busy", "tls"), [(False, False), (True, False), (True, True)])
async def test_clients_that_vanish_are_noticed_and_nothing_is_logged(
    dsn: str, database: "asyncpg.Connection[Any]", tmp_path: Path, busy: bool, tls: bool
) -> None:
    # Their machine is gone, or a firewall has forgotten them (hypercorn #361: ETIMEDOUT escaped as a traceback).
    certificate = self_signed(tmp_path, "127.0.0.1") if tls else None
    async with (
        serving(dsn, certificate=certificate, peer_timeout=1) as service,
        reading(service.url, http2=True, verify=False) as healthy,
        h2client(service.url) as http2,
    ):
        where = urlsplit(service.url)
        await healthy.until("synced")
        await http2.stream()
        vanishing = [http2.writer.get_extra_info("socket")]
        http1 = None
        if not tls:
            http1 = await asyncio.open_connection(where.hostname, where.port)
            http1[1].write(f"GET {STREAM} HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
            await http1[0].readuntil(b"synced")
            vanishing.append(http1[1].get_extra_info("socket"))
        ports = [sock.getsockname()[1] for sock in vanishing]
        try:
            for sock in vanishing:
                black_hole(sock)
            if busy:
                await database.execute(INSERT, "unheard")
                await healthy.jobs(1)

            async def alone() -> bool:
                return await open_streams(service.url) == 1

            await until(alone)
            await until(lambda: not any(server_side(service.url, port) for port in ports))
            await database.execute(INSERT, "still here")
            assert (await healthy.jobs(1))[0].data["title"] == "still here"
            assert service.said == b""
        finally:
            if http1 is not None:
                http1[1].transport.abort()
                with suppress(OSError):
                    await http1[1].wait_closed()


async def test_the_service_may_open_as_many_files_as_the_system_allows_it(dsn: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard // 2, hard))
    try:
        async with serving(dsn) as service:
            assert resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_herd_that_is_refused_is_taken_off_the_queue_a_little_in_each_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(listener, "monotonic", lambda: next(clock) * listener._TURN / 4)
    loop = asyncio.get_running_loop()
    turn, refused = 0, Counter[int]()

    def next_turn() -> None:
        nonlocal turn
        turn += 1
        ticking = loop.call_soon(next_turn)
        stack.callback(ticking.cancel)

    def refuse(_: str) -> None:
        refused[turn] += 1

    with ExitStack() as stack:
        config: Any = SimpleNamespace(admission=SimpleNamespace(enter=refuse))
        sock = ListeningSocket(config, socket.create_server(("127.0.0.1", 0), backlog=100))
        for _ in range(40):
            stack.enter_context(socket.socket()).connect_ex(sock.getsockname())
        made = listener.Listener(sock, None, 100, {})  # type: ignore[arg-type]
        stack.callback(made.close)
        next_turn()
        await until(lambda: refused.total() == 40)
    assert max(refused.values()) < 8
