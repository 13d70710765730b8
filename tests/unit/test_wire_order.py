"""The order of an HTTP/2 stream's bytes: nothing overtakes what was handed over before, pulled or pushed."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from h2.connection import H2Connection
from h2.events import DataReceived

from feed.hypercorn_adapter.config import WireConfig
from feed.hypercorn_adapter.connection import Connections
from feed.hypercorn_adapter.door import Door
from feed.hypercorn_adapter.http2 import Http2
from feed.hypercorn_adapter.refusals import Rations
from feed.wire.chunk import Chunk
from feed.wire.pacer import Pacer
from feed.wire.wire import Wire


class Transport:
    """Takes everything."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def write(self, data: bytes) -> None:
        self.taken += data

    def writelines(self, parts: list[bytes]) -> None:
        self.taken += b"".join(parts)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


class Server:
    """As much of the connection as HTTP/2 looks at."""

    def __init__(self, config: WireConfig) -> None:
        self.transport = Transport()
        self.door = Door(self.transport, None)
        self.config = config
        self.parts = SimpleNamespace(app=never_answered, state={})
        self.client = self.address = ("", 0)
        self.scheme = "http"
        self.turn = asyncio.Lock()
        self.ended = self.terminated = False
        self.rations = Rations()

    async def drained(self) -> None:
        """At once."""

    def not_idle(self) -> None:
        """Nobody counts."""


async def never_answered(*_: object) -> None:
    """An application that does nothing: the test writes."""
    await asyncio.Event().wait()


async def opened(streams: int) -> tuple[Http2, list[Wire], H2Connection, Transport]:
    """A connection with so many requests on it."""
    config = WireConfig()
    config.write_buffer, config.send_timeout, config.close_timeout = 32_768, 5.0, 1.0
    config.h2_resets, config.h2_reset_rate = 100, 1
    config.h2_control_rate, config.header_bytes = 100, 16_384
    config.crowds = lambda _: False
    config.connections, config.begin, config.frames = Connections(), Pacer(), Pacer()
    server = Server(config)
    http2 = Http2(cast(Any, server))
    http2.initiate()
    client = H2Connection()
    client.initiate_connection()
    for number in range(streams):
        request = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "feed")]
        client.send_headers(2 * number + 1, request, end_stream=True)
    http2.data_received(client.data_to_send())
    while len(http2.streams) < streams:
        await asyncio.sleep(0)
    for exchange in http2.streams.values():
        http2.send_head(exchange, 200, [])
    await asyncio.sleep(0)
    return http2, [exchange.wire for exchange in http2.streams.values()], client, server.transport


def bodies(client: H2Connection, transport: Transport) -> dict[int, bytes]:
    """What the client has of each stream."""
    found: dict[int, bytes] = {}
    for event in client.receive_data(bytes(transport.taken)):
        if isinstance(event, DataReceived):
            found[event.stream_id] = found.get(event.stream_id, b"") + event.data
    return found


@pytest.mark.parametrize("streams", [1, 2])
async def test_what_is_pushed_does_not_overtake_what_was_pulled_in_the_same_turn(streams: int) -> None:
    _, wires, client, transport = await opened(streams)
    for wire in wires:
        await wire.send(Chunk(b"pulled "))
        assert wire.write(Chunk(b"pushed "))
        await wire.send(Chunk(b"large " * 2_000))
        assert wire.write(Chunk(b"again"))
    await asyncio.sleep(0)
    whole = b"pulled pushed " + b"large " * 2_000 + b"again"
    assert bodies(client, transport) == {2 * number + 1: whole for number in range(streams)}


@pytest.mark.parametrize("streams", [1, 2])
async def test_the_end_comes_after_all_that_was_handed_over(streams: int) -> None:
    http2, wires, client, transport = await opened(streams)
    for number, wire in enumerate(wires):
        assert wire.write(Chunk(b"pushed "))
        await wire.send(Chunk(b"pulled"))
        http2.send_end(http2.streams[2 * number + 1])
    await asyncio.sleep(0)
    assert bodies(client, transport) == {2 * number + 1: b"pushed pulled" for number in range(streams)}
