"""A stream: opening → replay → live → goodbye. The one owner of the way from the log to the live set."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from feed.access.caller import Caller
from feed.errors import DatabaseRefused, DatabaseUnavailable
from feed.fanout.encoded import Encoded
from feed.fanout.ending import Ended, Farewell
from feed.fanout.history import History, Page, Pruned
from feed.fanout.hub import Hub
from feed.fanout.replay_blocks import BLOCK, Stretch
from feed.fanout.start_position import Lost, place_of
from feed.fanout.subscriber import PIECE, Pushed, Queued, Subscriber
from feed.model import frame
from feed.model.filter import Filter
from feed.model.query import Start
from feed.wire.chunk import Chunk
from feed.wire.wire import Wire

_SMALL = 8 * 1024
"""Bytes: a block of replay below this is sent together with the next one."""


Piece = bytes
"""Some of a stream's body; in `Stream` itself `bytes` is a number."""


@dataclass(slots=True)
class Replay:
    """One way from a position to the head, and where it led past."""

    after: int
    replayed: int  # events of the stream before
    began: int  # Unix time, nanoseconds
    ring: bool = False
    log: bool = False


class Stream:
    """One subscriber's connection. `chunks()` is its body; `end()` and `cut()` are for whoever must stop it.

    With a wire the hub pushes live frames into it, and what `chunks()` yields is what must be pulled: the opening, replay,
    the goodbye, and all that the wire did not take. The switch is here alone: live is pushed, not live is pulled.
    """

    def __init__(
        self, hub: Hub, history: History, wanted: Filter, start: Start, snapshot: str, cut: Callable[[], None],
        wire: Wire | None = None, caller: Caller | None = None, filters: str = "",
    ) -> None:  # fmt: skip
        self.id = hub.next_id()
        self.caller = caller or Caller()
        self.filters = filters  # as its client wrote them: a query string
        self.opened_at = time.time()
        self.due: float | None = None  # loop time at which it has been open for long enough
        self._hub = hub
        self._history = history
        self._filter = wanted
        self._start = start
        self._snapshot = snapshot
        self._wire = wire
        self._wake = asyncio.Event()
        self._member: Subscriber = (
            Queued(self._wake, hub.settings.subscriber_buffer, hub.rouse)
            if wire is None
            else Pushed(self._wake, wire.write)
        )
        self._course = hub.course
        self._farewell: Farewell | None = None
        self._said: Farewell | None = None
        self._cut: Ended | None = None
        self._opened = False
        self._replayed = 0
        self._pulled = 0  # bytes that the stream found for itself; what the hub gave is the member's account
        self._silent = 0.0  # seconds waited since the last heartbeat
        self._drop = cut
        self.position = hub.head
        self.sending_since: float | None = None  # loop time; None while nothing waits for the client

    @property
    def leaving(self) -> bool:
        """Whether it has been told to end."""
        return self._farewell is not None

    @property
    def events(self) -> int:
        """Events handed over so far."""
        return self._member.events + self._replayed

    @property
    def bytes(self) -> int:
        """Bytes handed over so far, of all frames."""
        return self._member.size + self._pulled

    @property
    def replayed(self) -> int:
        """Events of these that were read from the ring or the log."""
        return self._replayed

    @property
    def live(self) -> bool:
        """Whether the hub hands it what comes."""
        return self._member.live

    @property
    def pushed(self) -> bool:
        """Whether what comes goes straight to its socket; else it is fetched, at its own pace."""
        return self._wire is not None and self._member.live

    @property
    def lag(self) -> int:
        """Positions between it and the head that it has yet to be told of."""
        return 0 if self._member.live else max(0, self._hub.head - self.position)

    @property
    def family(self) -> str:
        """Its protocol as streams are counted: `HTTP/2`, or `HTTP/1.1` for every other."""
        return self.caller.family

    @property
    def filter_text(self) -> str:
        """What it asked for, as a query string."""
        return self.filters

    @property
    def ended(self) -> Farewell | Ended:
        """Why it ended, once it has."""
        if self._cut is None and self._wire is not None and self._wire.stalled:
            return Ended.STALLED
        return self._cut or self._said or Ended.CLIENT

    def cut(self, reason: Ended = Ended.STALLED) -> None:
        """Drop the connection under the stream at once."""
        if self._cut is None:
            self._cut = reason
        self._drop()

    def end(self, reason: Farewell) -> None:
        """Say goodbye as soon as what was given has been sent."""
        if self._farewell is None:
            self._farewell = reason
            self._wake.set()

    def gone(self) -> None:
        """The client is no longer there."""
        self._farewell = Farewell.GONE
        self._wake.set()

    async def frames(self) -> AsyncIterator[Piece]:
        """The bytes of the stream, in pieces; ends after a goodbye."""
        async for chunk in self.chunks():
            yield chunk.body

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The body of the stream, in pieces of at most PIECE bytes; ends after a goodbye."""
        hub = self._hub
        self._course = hub.course
        try:
            if self._farewell is None:
                try:
                    async with asyncio.timeout(hub.settings.connect_timeout):
                        place = await place_of(self._start, hub, self._history)
                except (DatabaseUnavailable, DatabaseRefused, TimeoutError):
                    self.end(Farewell.UNAVAILABLE)
            if self._farewell is None:
                self.position = place.position
                opening = frame.opening(hub.epoch, self.position, hub.retry_ms())
                synced = place.lost is None and self.position == hub.head and self._course == hub.course
                self._opened = True
                yield self._pull(Chunk(opening + frame.synced(self.position, 0) if synced else opening))
                if place.lost is not None:
                    yield self._pull(self._reset(place.lost))
                while self._farewell is None:
                    async for chunk in self._catch_up():
                        for piece in self._pull(chunk).slices(PIECE):
                            yield piece
                    if self._farewell is None and not synced:
                        synced = True
                        yield self._pull(Chunk(frame.synced(self.position, self._replayed)))
                    if not self._join():
                        continue
                    # Send what the hub gives, until we fall behind, the log takes another course, or it is time to go.
                    while True:
                        if given := self._member.take():
                            yield Chunk(given)
                        elif self._farewell is not None or not self._member.live:
                            hub.leave(self._filter, self._member)  # what is pulled must not meet what is pushed
                            self.position = self._member.position
                            break
                        else:
                            self._wake.clear()
                            await self._wake.wait()
                    if self._farewell is None and self._course == hub.course and self.position == hub.head:
                        # A heartbeat is what was not taken: it goes the slow way, which is watched for stalls.
                        yield self._pull(Chunk(frame.heartbeat(hub.epoch, self.position)))
            if self._farewell is not Farewell.GONE:
                reason = self._said = self._farewell or Farewell.DRAIN
                if not self._opened and self._start == Start() and hub.ready:
                    yield self._pull(Chunk(frame.pin(hub.epoch, hub.head)))  # what it misses meanwhile is replayed
                yield self._pull(Chunk(frame.goodbye(reason, hub.retry_ms(reason is not Farewell.DRAIN))))
        finally:
            hub.leave(self._filter, self._member)
            hub.forget(self._wake)

    def _pull(self, chunk: Chunk) -> Chunk:
        """Count what the stream found for itself."""
        self._pulled += chunk.size
        self._hub.counters.pulled_bytes += chunk.size
        return chunk

    def _reset(self, reason: Lost) -> Chunk:
        """Go on from the head; the frame says so."""
        self._course = self._hub.course
        self.position = self._hub.head
        return Chunk(frame.reset(self._hub.epoch, self.position, reason, self._snapshot))

    async def _catch_up(self) -> AsyncIterator[Chunk]:
        """Replay until the head is met; on return (without an await in between) the stream may join the live set."""
        hub = self._hub
        replay = Replay(self.position, self._replayed, time.time_ns())
        try:
            while self._farewell is None:
                if self._course != hub.course:
                    yield self._reset(Lost.EPOCH)
                if self.position == hub.head:
                    return
                if self.position > hub.head:  # judged good by the database: this process lags
                    hub.await_change(self._wake)
                    async for piece in self._pause():
                        yield piece
                elif hub.ring.covers(self.position):
                    await hub.replays.admitted()
                    if self._course == hub.course and hub.ring.covers(self.position):
                        replay.ring = True
                        for piece in self._pieces(hub.ring.after(self.position, BLOCK - self.position % BLOCK)):
                            yield piece
                else:
                    replay.log = True
                    async for piece in self._from_log():
                        yield piece
        finally:
            self._note(replay)

    def _note(self, replay: Replay) -> None:
        """Count a replay that has ended; its span, too."""
        if not (replay.ring or replay.log):
            return
        hub = self._hub
        hub.counters.replays_ring += replay.ring
        hub.counters.replays_log += replay.log
        attributes = {
            "from": replay.after, "to": self.position, "events": self._replayed - replay.replayed,
            "source": "log" if replay.log else "ring",
        }  # fmt: skip
        hub.traces.record("feed.replay", replay.began, time.time_ns(), attributes)

    async def _from_log(self) -> AsyncIterator[Chunk]:
        """Replay one page of the log; heartbeats while it is not to be had."""
        hub = self._hub
        loading = self._history.page(self.position, hub.epoch, hub.head, hub.course)
        while not loading.done() and self._farewell is None and self._course == hub.course:
            loading.add_done_callback(self._notice)
            async for piece in self._pause():
                yield piece
        if not loading.done() or loading.cancelled():
            return
        await hub.replays.admitted()
        try:
            events = loading.result().beyond(self.position)
        except Pruned:
            yield self._reset(Lost.PRUNED)
        except (DatabaseUnavailable, DatabaseRefused):
            async for piece in self._pause(1.0):
                yield piece
        else:
            before = self._replayed
            for piece in self._pieces(events):
                yield piece
            if events and self._replayed == before:
                # A page without a match still moves the cursor, so that a long replay need not start over.
                yield Chunk(frame.pin(hub.epoch, self.position))

    def _notice(self, _: "asyncio.Future[Page]") -> None:
        self._wake.set()

    def _pieces(self, events: list[Encoded]) -> Iterator[Chunk]:
        """What the filter wants of a stretch of replay, small blocks put together; the position moves along."""
        small: list[bytes] = []
        for stretch in self._hub.joined.stretches(self._filter, events):
            if self._course != self._hub.course:
                return
            if stretch.chunk.size > _SMALL:
                if small:
                    yield Chunk(b"".join(small))
                    small = []
                    if self._course != self._hub.course:
                        return
                self._move(stretch)
                yield stretch.chunk
            else:
                self._move(stretch)
                if stretch.count:
                    small.append(stretch.chunk.body)
        if small:
            yield Chunk(b"".join(small))

    def _move(self, stretch: Stretch) -> None:
        self.position = stretch.upto
        self._replayed += stretch.count
        self._hub.counters.pulled += stretch.count

    async def _pause(self, longest: float | None = None) -> AsyncIterator[Chunk]:
        """Wait to be woken, or for `longest` seconds; in silence, a heartbeat at the stream's own position."""
        interval = self._hub.settings.heartbeat
        wait = interval if longest is None else min(longest, interval)
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            self._silent += wait  # several short waits are a silence too
            if self._silent >= interval:
                self._silent = 0.0
                yield Chunk(frame.heartbeat(self._hub.epoch, self.position))
        else:
            self._wake.clear()

    def _join(self) -> bool:
        """Join the live set, if the head was met in this very tick."""
        hub = self._hub
        if self._farewell is not None or self._course != hub.course or self.position != hub.head:
            return False
        hub.join(self._filter, self._member, self.position)
        return True
