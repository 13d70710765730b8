"""The order of an HTTP/2 stream's bytes: nothing overtakes what was handed over before, pulled or pushed."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from h2.connection import H2Connection
from h2.events import DataReceived
from hypercorn.events import RawData
from hypercorn.protocol.events import EndBody

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
        self.writer = SimpleNamespace(transport=self.transport)
        self.door = Door(self.transport, None)
        self.config = config
        self.turn = asyncio.Lock()
        self.ended = False
        self.rations = Rations()

    async def drained(self) -> None:
        """At once."""

    async def protocol_send(self, event: object) -> None:
        if isinstance(event, RawData):
            self.transport.write(event.data)


class Tasks:
    """Applications that do nothing: the test writes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def spawn(self, func: Any, *args: Any) -> None:
        func(*args).close()

    async def spawn_app(self, *_: Any) -> Any:
        return asyncio.Queue().put


class Flag:
    """Never set."""

    def is_set(self) -> bool:
        return False

    async def set(self) -> None:
        """No."""


async def opened(streams: int) -> tuple[Http2, list[Wire], H2Connection, Transport]:
    """A connection with so many requests on it."""
    config = WireConfig()
    config.write_buffer, config.send_timeout, config.close_timeout = 32_768, 5.0, 1.0
    config.h2_resets, config.h2_reset_rate = 100, 1
    config.h2_control_rate, config.header_bytes = 100, 16_384
    config.connections, config.begin, config.frames = Connections(), Pacer(), Pacer()
    server = Server(config)

    async def mark_request() -> None:
        """Nobody counts."""

    context = SimpleNamespace(event_class=Flag, terminated=Flag(), mark_request=mark_request)
    http2 = Http2(None, config, context, Tasks(), cast(Any, {}), False, None, None, server.protocol_send)
    await http2.initiate()
    client = H2Connection()
    client.initiate_connection()
    for number in range(streams):
        request = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "feed")]
        client.send_headers(2 * number + 1, request, end_stream=True)
    await http2.handle(RawData(client.data_to_send()))
    for stream_id in http2.streams:
        http2.connection.send_headers(stream_id, [(":status", "200")])
    await http2._flush()
    wires = [exchange.wire for exchange in http2.streams.values()]
    return http2, [wire for wire in wires if wire is not None], client, server.transport


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
        await http2.stream_send(EndBody(stream_id=2 * number + 1))
    await asyncio.sleep(0)
    assert bodies(client, transport) == {2 * number + 1: b"pushed pulled" for number in range(streams)}
