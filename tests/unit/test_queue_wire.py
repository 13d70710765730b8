"""The wire with a queue behind it: bounded, in order, fetched a few readers at a time, and over when either side ends it."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from feed.wire.chunk import PIECE, Chunk
from feed.wire.queue_wire import QueueWire, Waves
from feed.wire.wire import Disconnected


def wire_of(limit: int = 1_000, waves: Waves | None = None) -> QueueWire:
    return QueueWire(limit, waves or Waves(), lambda: None)


async def piece(pieces: AsyncGenerator[bytes, None]) -> bytes:
    async with asyncio.timeout(10):
        return await anext(pieces)


async def test_what_is_written_comes_out_in_order_and_small_chunks_as_one_piece() -> None:
    wire = wire_of()
    pieces = wire.pieces()
    for body in (b"one ", b"two ", b"three"):
        assert wire.write(Chunk(body))
    assert await piece(pieces) == b"one two three"
    chunk = Chunk(b"four")
    assert wire.write(chunk)
    assert await piece(pieces) is chunk.body  # the object that a group shares
    wire.write(Chunk(b"five"))
    wire.finish()
    assert [one async for one in pieces] == [b"five"]


async def test_a_piece_is_bounded_unless_a_single_chunk_is_larger() -> None:
    wire = wire_of(10 * PIECE)
    pieces = wire.pieces()
    for body in (b"x" * (PIECE - 1), b"y", b"z", b"w" * (PIECE + 1)):
        assert wire.write(Chunk(body))
    assert [len(await piece(pieces)) for _ in range(3)] == [PIECE, 1, PIECE + 1]


async def test_over_the_bound_nothing_is_taken_until_some_has_been_fetched() -> None:
    wire = wire_of(100)
    pieces = wire.pieces()
    assert wire.write(Chunk(b"a" * 60)) and not wire.write(Chunk(b"b" * 41)) and wire.write(Chunk(b"c" * 40))
    assert await piece(pieces) == b"a" * 60 + b"c" * 40
    assert wire.write(Chunk(b"d" * 500))  # larger than the bound: it is taken where nothing else waits
    assert not wire.write(Chunk(b"e"))
    assert await piece(pieces) == b"d" * 500
    assert wire.write(Chunk(b"e"))


async def test_send_waits_for_room_and_keeps_the_order() -> None:
    wire = wire_of(100)
    pieces = wire.pieces()
    assert wire.write(Chunk(b"a" * 100))
    sending = asyncio.create_task(wire.send(Chunk(b"b" * 50)))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not sending.done()
    assert await piece(pieces) == b"a" * 100
    assert await piece(pieces) == b"b" * 50
    await sending


async def test_a_reader_that_leaves_frees_who_waits_for_room() -> None:
    wire = wire_of(100)
    pieces = wire.pieces()
    wire.write(Chunk(b"a"))
    await piece(pieces)
    wire.write(Chunk(b"b" * 100))
    sending = asyncio.create_task(wire.send(Chunk(b"c")))
    await asyncio.sleep(0)
    await pieces.aclose()
    with pytest.raises(Disconnected):
        await sending
    assert wire.closed and not wire.write(Chunk(b"d"))
    with pytest.raises(Disconnected):
        await wire.send(Chunk(b"d"))


async def test_a_cut_drops_the_connection_and_ends_the_pieces() -> None:
    dropped: list[bool] = []
    wire = QueueWire(100, Waves(), lambda: dropped.append(True))
    pieces = wire.pieces()
    reading = asyncio.create_task(piece(pieces))
    await asyncio.sleep(0)
    wire.cut()
    with pytest.raises(StopAsyncIteration):
        await reading
    assert dropped == [True]


async def test_readers_are_woken_in_waves_and_each_waits_once() -> None:
    waves = Waves()
    wires = [wire_of(10_000, waves) for _ in range(50)]
    waiting: list[int] = []

    async def read_one(number: int) -> None:
        assert await piece(wires[number].pieces()) == b"x" * 19
        waiting.append(waves.waiting)

    readers = [asyncio.create_task(read_one(number)) for number in range(50)]
    await asyncio.sleep(0)
    for _ in range(19):
        for wire in wires:
            wire.write(Chunk(b"x"))
    assert waves.waiting == len(wires)
    await asyncio.gather(*readers)
    assert waiting[0] >= 30  # when the first had read, most had yet to be woken
    assert not waves.waiting
