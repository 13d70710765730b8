"""A stream: what it pulls and what the hub pushes, and how it goes from one to the other."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from feed.errors import DatabaseUnavailable
from feed.fanout.ending import Ended, Goodbye
from feed.fanout.history import History, LogState, Pruned
from feed.fanout.hub import Hub
from feed.fanout.replay_blocks import ReplayBlocks
from feed.fanout.sources import StreamSources
from feed.fanout.stream import Stream
from feed.fanout.stream_request import StreamRequest
from feed.model.cursor import Cursor
from feed.model.filter import EVERYTHING, Filter
from feed.model.query import Start
from feed.settings.settings import load_settings
from feed.wire.chunk import PIECE, Chunk
from feed.wire.wire import Disconnected
from tests.unit.events import EPOCH, event
from tests.unit.fake_log import FakeLog
from tests.unit.wires import BrokenWire, FakeWire
from tests.waiting import until

ACME = Filter(company=("acme",))


@asynccontextmanager
async def serving(log: FakeLog, head: int = 0) -> AsyncIterator[StreamSources]:
    """What streams are served from, with a hub that follows `log` from `head` on."""
    hub = Hub(load_settings(ring_events=50).hub)
    hub.restart_at(EPOCH, head)
    hub.ready = True
    async with asyncio.timeout(20), History(log, load_settings(history_page=10).replay) as history:
        yield StreamSources(hub, history, ReplayBlocks(10**6), 5.0)
        log.gate.set()


def opened(
    sources: StreamSources, wire: FakeWire | None = None, cursor: int | None = None, wanted: Filter = EVERYTHING
) -> tuple[Stream, AsyncGenerator[Chunk, None]]:
    start = Start() if cursor is None else Start(Cursor(cursor))
    stream = Stream(sources, StreamRequest(start=start, filter=wanted), wire or FakeWire())
    return stream, stream.chunks()


async def body(chunks: AsyncGenerator[Chunk, None]) -> bytes:
    """The next chunk that is pulled."""
    return (await anext(chunks)).body


def ids(frames: bytes) -> list[int]:
    """The positions of the events in some frames."""
    return [int(part.split(b".")[1].split(b"\n")[0]) for part in frames.split(b"\n\n") if b"event: posted" in part]


async def test_a_stream_from_now_opens_in_one_chunk_and_is_pushed_what_comes() -> None:
    wire = FakeWire()
    async with serving(FakeLog()) as sources:
        stream, chunks = opened(sources, wire)
        opening = await body(chunks)
        assert opening.startswith(b"retry: ") and b"id: 7.0\n" in opening and b"event: synced\n" in opening
        pulling = asyncio.create_task(body(chunks))
        await until(lambda: stream.live)
        sources.hub.publish([event(1), event(2)])
        assert ids(wire.body) == [1, 2] and stream.position == 2 and not pulling.done()
        stream.end(Goodbye.DRAIN)
        stream.end(Goodbye.EXPIRED)
        assert b'event: goodbye\ndata: {"reason":"drain"' in await pulling
        assert [chunk async for chunk in chunks] == []
        assert stream.ended is Goodbye.DRAIN and not stream.live
        assert (stream.events, stream.replayed) == (2, 0)


@pytest.mark.parametrize("memory", ["ring", "log"])
async def test_what_lies_behind_is_pulled_up_to_the_head_and_then_pushed(memory: str) -> None:
    wire = FakeWire()
    async with serving(FakeLog(head=25), 0 if memory == "ring" else 25) as sources:
        if memory == "ring":
            sources.hub.publish([event(position) for position in range(1, 26)])
        stream, chunks = opened(sources, wire, cursor=3)
        pulled = [await body(chunks)]
        while b"event: synced" not in pulled[-1]:
            pulled.append(await body(chunks))
        pulling = asyncio.create_task(body(chunks))
        await until(lambda: stream.live)
        sources.hub.publish([event(26)])
        assert ids(b"".join(pulled)) == list(range(4, 26)) and ids(wire.body) == [26]
        assert (stream.replayed, stream.events) == (22, 23)
        counters = sources.hub.counters
        assert (counters.replays_ring, counters.replays_log) == ((1, 0) if memory == "ring" else (0, 1))
        stream.gone()
        with pytest.raises(StopAsyncIteration):
            await pulling
        assert stream.ended is Ended.CLIENT


async def test_a_replay_by_a_filter_reads_only_what_it_may_want_and_tells_of_what_was_left_out() -> None:
    log = FakeLog(head=205)
    log.every = 60
    async with serving(log, 205) as sources:
        stream, chunks = opened(sources, cursor=3, wanted=ACME)
        pulled = b""
        while b"event: synced" not in pulled:
            pulled += await body(chunks)
            if b"event: synced" not in pulled:
                assert b"id: 7.%d\n" % stream.position in pulled or ids(pulled)
        assert ids(pulled) == [60, 120, 180] and stream.replayed == 3 and stream.position == 205
        assert all(b"id: 7.%d\n\n" % end in pulled for end in (40, 160, 205))  # pages in which nothing matched
    assert log.reads == []
    assert log.finds == [(begin, min(begin + 40, 205)) for begin in range(0, 205, 40)]


async def test_a_replay_by_a_filter_that_wants_most_reads_the_pages_of_all() -> None:
    log = FakeLog(head=95)
    async with serving(log, 95) as sources:
        _, chunks = opened(sources, cursor=3, wanted=ACME)
        pulled = b""
        while b"event: synced" not in pulled:
            pulled += await body(chunks)
    assert ids(pulled) == list(range(4, 96))
    assert log.finds == [(0, 40)]
    assert log.reads == [(begin, min(begin + 10, 95)) for begin in range(40, 95, 10)]


async def test_a_replay_by_a_filter_is_reset_where_the_log_was_pruned_or_is_shorter() -> None:
    for change in ({"floor": 30}, {"head": 30}):
        log = FakeLog(head=95)
        for name, value in change.items():
            setattr(log, name, value)
        async with serving(log, 95) as sources:
            hub = sources.hub
            replay = sources.history.page(3, EPOCH, hub.head, hub.generation, ACME)
            with pytest.raises(Pruned):
                (await replay).beyond(3)


async def test_what_the_wire_does_not_take_is_pulled_in_pieces_and_then_it_is_live_again() -> None:
    wire = FakeWire()
    async with serving(FakeLog()) as sources:
        stream, chunks = opened(sources, wire)
        await body(chunks)
        pulling = asyncio.create_task(body(chunks))
        await until(lambda: stream.live)
        wire.room = 0
        sources.hub.publish([event(1, title="x" * PIECE)])
        assert not stream.live and stream.lag == 1
        first, second = await pulling, await body(chunks)
        assert len(first) == PIECE and ids(first + second) == [1]
        pulling = asyncio.create_task(body(chunks))
        await until(lambda: stream.live)
        wire.room = 10**6
        sources.hub.publish([event(2)])
        assert ids(wire.body) == [2] and stream.lag == 0
        stream.gone()
        await asyncio.gather(pulling, return_exceptions=True)


async def test_a_heartbeat_that_the_wire_does_not_take_is_pulled() -> None:
    wire = FakeWire()
    async with serving(FakeLog()) as sources:
        stream, chunks = opened(sources, wire)
        await body(chunks)
        pulling = asyncio.create_task(body(chunks))
        await until(lambda: stream.live)
        wire.room = 0
        sources.hub.beat(asyncio.get_running_loop().time() + 100)
        assert b"event: heartbeat" in await pulling
        await chunks.aclose()


async def test_a_wire_that_raises_ends_its_stream_as_an_error() -> None:
    wire = BrokenWire()
    async with serving(FakeLog()) as sources:
        stream, chunks = opened(sources, wire)
        await body(chunks)
        pulling = asyncio.create_task(body(chunks))
        await until(lambda: stream.live)
        sources.hub.publish([event(1)])
        with pytest.raises(Disconnected):
            await pulling
        assert stream.ended is Ended.ERROR and wire.closed and not stream.live


async def test_another_generation_of_the_log_resets_a_live_stream() -> None:
    async with serving(FakeLog()) as sources:
        stream, chunks = opened(sources)
        await body(chunks)
        pulling = asyncio.create_task(body(chunks))
        await until(lambda: stream.live)
        sources.hub.restart_at(EPOCH + 1, 40)
        reset = await pulling
        assert reset.startswith(b"id: 8.40\nevent: reset\n") and b'"reason":"epoch"' in reset
        assert stream.position == 40
        await chunks.aclose()


async def test_a_cursor_of_no_use_opens_with_a_reset_at_the_head() -> None:
    log = FakeLog(head=25)
    async with serving(log, 25) as sources:
        stream, chunks = opened(sources, cursor=30)
        opening = await body(chunks)
        names = [part.partition(b"event: ")[2].partition(b"\n")[0] for part in opening.split(b"\n\n")[:-1]]
        assert names == [b"", b"", b"reset", b"synced"]
        assert stream.position == 25
        await chunks.aclose()


async def test_a_stream_that_is_to_end_does_not_wait_for_a_page() -> None:
    log = FakeLog(head=25)
    log.gate.clear()
    async with serving(log, 25) as sources:
        stream, chunks = opened(sources, cursor=0)
        await body(chunks)
        pulling = asyncio.create_task(body(chunks))
        await log.asked.wait()
        stream.end(Goodbye.EXPIRED)
        assert b"event: goodbye" in await pulling


async def test_a_start_that_only_the_database_knows_is_refused_while_it_is_away() -> None:
    class Away(FakeLog):
        async def state(self) -> LogState:
            raise DatabaseUnavailable("away")

    async with serving(Away(head=25), 25) as sources:
        stream, chunks = opened(sources, cursor=30)
        assert b'"reason":"unavailable"' in await body(chunks)
        assert not stream.opened and stream.ended is Goodbye.UNAVAILABLE
