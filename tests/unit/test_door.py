"""The door of a connection: the native writer may pass only while nothing waits, and while the descriptor is open."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from feed.hypercorn_adapter.door import Door
from feed.hypercorn_adapter.http2_cork import Cork

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


class Socket:
    """As much of the extension's socket as the door uses."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.open = True


NATIVE: Any = SimpleNamespace(Socket=Socket)


class Told(asyncio.Protocol):
    """Closes its door as a connection does (tcp.py), and notes whether the descriptor was still open then."""

    door: Door | None = None
    closed_too_early: bool | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.door is None or self.door.socket is None:
            return
        descriptor = self.door.socket.fd
        self.door.close()
        assert self.door.socket.fd == -1
        os.fstat(descriptor)
        self.closed_too_early = False


async def connected() -> tuple[Any, Any, socket.socket]:
    """A transport with its protocol, and the client's end."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    near.setblocking(False)
    client.setblocking(False)
    transport, made = await loop.connect_accepted_socket(Told, near)
    return transport, made, client


def run(loop: Callable[[], asyncio.AbstractEventLoop], work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(work)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("client_resets", [False, True])
def test_the_native_socket_is_closed_before_the_descriptor(loop: Any, client_resets: bool) -> None:
    async def work() -> None:
        transport, protocol, client = await connected()
        door = protocol.door = Door(transport, NATIVE)
        assert door.socket is not None and door.socket.fd == transport.get_extra_info("socket").fileno()
        if client_resets:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        else:
            transport.abort()
        async with asyncio.timeout(20):
            while protocol.closed_too_early is None:
                await asyncio.sleep(0.001)
        client.close()

    run(loop, work())


@pytest.mark.parametrize("loop", LOOPS)
def test_the_native_writer_waits_for_what_the_transport_holds(loop: Any) -> None:
    async def work() -> None:
        transport, _, client = await connected()
        door = Door(transport, NATIVE)
        assert door.socket is not None
        door.write(b"x")
        assert door.socket.open
        door.writelines([b"x" * 20_000_000, b"y"])
        assert not door.socket.open
        async with asyncio.timeout(20):
            received = 0
            while received < 20_000_002:
                received += len(await asyncio.get_running_loop().sock_recv(client, 65536))
            while transport.get_write_buffer_size():
                await asyncio.sleep(0.001)
        door.write(b"z")
        assert door.socket.open
        transport.abort()
        client.close()

    run(loop, work())


def test_the_native_writer_waits_for_frames_that_are_kept() -> None:
    async def work() -> None:
        transport, _, client = await connected()
        door = Door(transport, NATIVE)
        assert door.socket is not None
        cork = Cork(door, transport)
        cork.put(b"HEADERS")
        assert not door.socket.open
        door.write(b"something else")
        assert not door.socket.open
        cork.release()
        assert door.socket.open
        transport.abort()
        client.close()

    run(uvloop.new_event_loop, work())


def test_over_tls_and_without_the_extension_there_is_no_native_socket() -> None:
    async def work() -> None:
        transport, _, client = await connected()
        named = {"sslcontext": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "socket": transport.get_extra_info("socket")}
        secure = SimpleNamespace(
            get_extra_info=named.get,
            get_write_buffer_size=lambda: 0,
            is_closing=lambda: False,
        )
        assert Door(secure, NATIVE).socket is None
        assert Door(transport, None).socket is None
        transport.abort()
        client.close()

    run(uvloop.new_event_loop, work())
