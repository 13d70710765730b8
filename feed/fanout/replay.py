"""Replay: brings one stream from its position to the head of the log, with events from the ring or from pages of the log."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from feed.errors import DatabaseRefused, DatabaseUnavailable
from feed.fanout.encoded_event import EncodedEvent
from feed.fanout.history import Page, Pruned
from feed.fanout.replay_blocks import BLOCK, ReplayBlock
from feed.fanout.sources import StreamSources
from feed.fanout.start_position import Lost, ask_start_position, known_start_position
from feed.fanout.stream_request import StreamRequest
from feed.fanout.subscriber import Subscriber
from feed.model import frame
from feed.model.filter import EVERYTHING
from feed.wire.chunk import PIECE, Chunk

_SMALL = 8 * 1024
"""Bytes: a block below this size is sent together with the next one."""
_RETRY = 1.0
"""Seconds between attempts to read a page while the database is away."""


class Replay:
    """Moves a subscriber that is not live to the head of the log, and yields what its filter wants on the way.

    A position belongs to one generation of the log. When the log changes its generation, the stream goes on from the new
    head, and a `reset` frame says so.
    """

    __slots__ = (
        "_generation", "_member", "_narrow", "_read_log", "_read_ring", "_request", "_silence", "_sources", "_wake",
        "replayed", "stopped",
    )  # fmt: skip

    def __init__(self, sources: StreamSources, request: StreamRequest, member: Subscriber) -> None:
        self._sources = sources
        self._request = request
        self._member = member
        self._wake = member.wake
        self._generation = sources.hub.generation
        self._read_ring = False  # whether the current or last replay read events from the ring
        self._read_log = False  # whether it read events from the log
        self._narrow = False  # whether to read pages of the filter's own
        self._silence = 0.0  # seconds that it has waited since the last heartbeat
        self.replayed = 0
        """Events that were found so far."""
        self.stopped = False

    @property
    def at_head(self) -> bool:
        """Whether nothing is missing. The subscriber may then go live, provided nothing is awaited in between."""
        hub = self._sources.hub
        return self._generation == hub.generation and self._member.position == hub.head

    def stop(self) -> None:
        """Let `to_head` return as soon as possible: the stream ends."""
        self.stopped = True
        self._wake.set()

    async def find_start(self) -> Lost | None:
        """Move to where the client asked to begin. Returns why its cursor cannot be used, or None if it can.

        Raises DatabaseUnavailable or DatabaseRefused where the database must be asked and cannot be, and TimeoutError.
        """
        sources = self._sources
        self._generation = sources.hub.generation
        found = known_start_position(self._request.start, sources.hub)
        if found is None:
            async with asyncio.timeout(sources.start_timeout):
                found = await ask_start_position(self._request.start, sources.hub, sources.history)
        self._member.position = found.position
        return found.lost

    def reset(self, reason: Lost) -> bytes:
        """Skip to the head; returns the `reset` frame that tells the client."""
        hub = self._sources.hub
        self._generation = hub.generation
        self._member.position = hub.head
        return frame.reset(hub.epoch, hub.head, reason, self._request.snapshot)

    async def to_head(self) -> AsyncIterator[Chunk]:
        """Yield the frames between the position and the head, and heartbeats during long waits.

        Returns at the head or after `stop`. Nothing is awaited between the last check of the head and the return.
        """
        hub, member = self._sources.hub, self._member
        first, replayed, began_at = member.position, self.replayed, time.time_ns()
        self._read_ring = self._read_log = False
        self._narrow = self._request.filter != EVERYTHING
        try:
            while not self.stopped:
                if self._generation != hub.generation:
                    yield Chunk(self.reset(Lost.EPOCH))
                if member.position == hub.head:
                    return
                if member.position > hub.head:  # the database knows the position, and this process lags behind it
                    hub.await_change(self._wake)
                    async for chunk in self._pause():
                        yield chunk
                elif hub.ring.covers(member.position):
                    async for chunk in self._from_ring():
                        yield chunk
                else:
                    async for chunk in self._from_log():
                        yield chunk
        finally:
            self._record(first, replayed, began_at)

    async def _from_ring(self) -> AsyncIterator[Chunk]:
        """Replay to the end of a block out of the ring."""
        hub, position = self._sources.hub, self._member.position
        self._read_ring = True
        events = hub.ring.after(position, BLOCK - position % BLOCK)
        async for chunk in self._wanted(events, events[-1].position):
            yield chunk

    async def _from_log(self) -> AsyncIterator[Chunk]:
        """Replay one page of the log, or wait a while if it cannot be read."""
        hub, member = self._sources.hub, self._member
        self._read_log = True
        wanted = self._request.filter if self._narrow else EVERYTHING
        loading = self._sources.history.page(member.position, hub.epoch, hub.head, hub.generation, wanted)
        while not loading.done() and not self.stopped and self._generation == hub.generation:
            loading.add_done_callback(self._page_is_there)
            async for chunk in self._pause():
                yield chunk
        if not loading.done() or loading.cancelled():
            return
        try:
            page = loading.result()
            events = page.beyond(member.position)
        except Pruned:
            yield Chunk(self.reset(Lost.PRUNED))
        except (DatabaseUnavailable, DatabaseRefused):
            async for chunk in self._pause(_RETRY):
                yield chunk
        else:
            # Where a filter wants much, pages that are shared by all filters cost less.
            self._narrow = self._narrow and not page.dense
            first, replayed = member.position, self.replayed
            async for chunk in self._wanted(events, page.upto):
                yield chunk
            if member.position > first and self.replayed == replayed and self._generation == hub.generation:
                # A page without a match still moves the cursor, so that a long replay need not start over.
                yield Chunk(frame.pin(hub.epoch, member.position))

    def _page_is_there(self, _: "asyncio.Future[Page]") -> None:
        self._wake.set()

    async def _wanted(self, events: Sequence[EncodedEvent], upto: int) -> AsyncIterator[Chunk]:
        """Yield the frames of matching events up to a position, joining small blocks, and advance to it.

        `events` must hold every event that the filter wants between the position and `upto`. Live events and other streams
        have their turns between two blocks.
        """
        hub, member = self._sources.hub, self._member
        small: list[bytes] = []
        size = 0
        blocks = self._sources.blocks.of(self._request.filter, events, member.position, upto, self._generation)
        while member.position < upto:
            await hub.replays.admitted()
            if self._generation != hub.generation:
                return
            block = next(blocks)
            if small and (block.chunk.size > _SMALL or size + block.chunk.size > PIECE):
                yield Chunk(b"".join(small))
                small, size = [], 0
                if self._generation != hub.generation:
                    return
            self._pass(block)
            if block.chunk.size > _SMALL:
                yield block.chunk
            elif block.count:
                small.append(block.chunk.body)
                size += block.chunk.size
        if small:
            yield Chunk(b"".join(small))

    def _pass(self, block: ReplayBlock) -> None:
        self._member.position = block.upto
        self.replayed += block.count
        self._sources.hub.counters.pulled += block.count

    async def _pause(self, longest: float | None = None) -> AsyncIterator[Chunk]:
        """Wait to be woken, or for `longest` seconds; yields a heartbeat at the stream's position if it is due."""
        hub = self._sources.hub
        wait = hub.heartbeat if longest is None else min(longest, hub.heartbeat)
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            self._silence += wait  # several short waits are a silence too
            if self._silence >= hub.heartbeat:
                self._silence = 0.0
                yield Chunk(frame.heartbeat(hub.epoch, self._member.position))
        else:
            self._wake.clear()

    def _record(self, first: int, replayed: int, began_at: int) -> None:
        """Count a finished replay and record its trace span, unless it read nothing."""
        if not (self._read_ring or self._read_log):
            return
        hub = self._sources.hub
        hub.counters.replays_ring += self._read_ring
        hub.counters.replays_log += self._read_log
        attributes = {
            "from": first, "to": self._member.position, "events": self.replayed - replayed,
            "source": "log" if self._read_log else "ring",
        }  # fmt: skip
        hub.traces.record("feed.replay", began_at, time.time_ns(), attributes)
