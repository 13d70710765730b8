"""A stream: opening, then replay and live in turn, then goodbye. It alone decides what is pushed and what is pulled."""

import asyncio
import time
from collections.abc import AsyncGenerator

from feed.access.caller import Caller
from feed.errors import DatabaseRefused, DatabaseUnavailable
from feed.fanout.ending import Ended, Goodbye
from feed.fanout.replay import Replay
from feed.fanout.sources import StreamSources
from feed.fanout.stream_request import StreamRequest
from feed.fanout.subscriber import Subscriber
from feed.model import frame
from feed.model.query import Start
from feed.wire.chunk import PIECE, Chunk
from feed.wire.wire import Disconnected, Wire


class Stream:
    """One subscriber's connection. `chunks()` is its body; `end()` and `cut()` are for whoever must stop it.

    While it is live the hub pushes frames into its wire. `chunks()` yields what must be pulled: the opening, replay, the
    goodbye, and all that the wire did not take.
    """

    def __init__(
        self, sources: StreamSources, request: StreamRequest, wire: Wire, caller: Caller | None = None
    ) -> None:
        hub = sources.hub
        self.id = hub.next_id()
        self.caller = caller or Caller()
        self.wire = wire
        self.opened_at = time.time()
        self.due: float | None = None  # loop time at which it has been open for long enough
        self.sending_since: float | None = None  # loop time; None while nothing waits for the client
        self._hub = hub
        self._request = request
        self._wake = asyncio.Event()
        self._member = Subscriber(self._wake, wire)
        self._member.position = hub.head
        self._replay = Replay(sources, request, self._member)
        self._reason: Goodbye | None = None
        self._said: Goodbye | None = None
        self._cut: Ended | None = None
        self._opened = False
        self._synced = False
        self._pulled = 0  # bytes that the stream found for itself; the subscriber counts what the hub gave

    @property
    def leaving(self) -> bool:
        """Whether it has been told to end."""
        return self._reason is not None

    @property
    def position(self) -> int:
        """The last position that it was given."""
        return self._member.position

    @property
    def opened(self) -> bool:
        """Whether it has begun: its position is known, and its first frame was made."""
        return self._opened

    @property
    def events(self) -> int:
        """Events handed over so far."""
        return self._member.events + self._replay.replayed

    @property
    def bytes(self) -> int:
        """Bytes handed over so far, of all frames."""
        return self._member.size + self._pulled

    @property
    def replayed(self) -> int:
        """Events of these that were read from the ring or the log."""
        return self._replay.replayed

    @property
    def live(self) -> bool:
        """Whether the hub hands it what comes."""
        return self._member.live

    @property
    def pushed(self) -> bool:
        """Whether what comes goes straight to its socket; else it is fetched, at the client's pace."""
        return self.wire.direct and self._member.live

    @property
    def lag(self) -> int:
        """Positions between it and the head that it has yet to be told of."""
        return 0 if self._member.live else max(0, self._hub.head - self._member.position)

    @property
    def family(self) -> str:
        """Its protocol as streams are counted: `HTTP/2`, or `HTTP/1.1` for every other."""
        return self.caller.family

    @property
    def filters(self) -> str:
        """The filter as its client wrote it: a query string."""
        return self._request.query

    @property
    def ended(self) -> Goodbye | Ended:
        """Why it ended, once it has."""
        if self._cut is None and self.wire.stalled:
            return Ended.STALLED
        return self._cut or self._said or Ended.CLIENT

    def cut(self, reason: Ended = Ended.STALLED) -> None:
        """Drop the connection under the stream at once."""
        if self._cut is None:
            self._cut = reason
        self.wire.cut()

    def end(self, reason: Goodbye) -> None:
        """Say goodbye as soon as what was given has been sent. The first reason counts."""
        if self._reason is None:
            self._reason = reason
            self._replay.stop()

    def gone(self) -> None:
        """End without a goodbye: the client is no longer there."""
        self._reason = Goodbye.GONE
        self._replay.stop()

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """Yield the body of the stream as far as it is pulled, in pieces of at most PIECE bytes.

        It ends after a goodbye. Raises Disconnected where a fault of ours has cut the connection.
        """
        try:
            if not self.leaving and (opening := await self._opening()) is not None:
                yield self._count(opening)
            while not self.leaving:
                async for chunk in self._replay.to_head():
                    for piece in chunk.slices(PIECE):
                        yield self._count(piece)
                if not (self.leaving or self._synced):
                    self._synced = True
                    yield self._count(Chunk(frame.synced(self.position, self.replayed)))
                if not self.leaving and self._replay.at_head and (untaken := await self._live()) is not None:
                    yield self._count(untaken)
            if (goodbye := self._goodbye()) is not None:
                yield self._count(goodbye)
        finally:
            self._hub.leave(self._request.filter, self._member)
            self._hub.forget(self._wake)

    async def _opening(self) -> Chunk | None:
        """Find the position to begin at; returns the first frames, or None where the stream is to end at once."""
        try:
            lost = await self._replay.find_start()
        except (DatabaseUnavailable, DatabaseRefused, TimeoutError):
            self.end(Goodbye.UNAVAILABLE)
        if self.leaving:
            return None
        self._opened = True
        frames = frame.opening(self._hub.epoch, self.position, self._hub.retry_ms())
        if lost is not None:
            frames += self._replay.reset(lost)
        if self._replay.at_head:
            self._synced = True
            frames += frame.synced(self.position, 0)
        return Chunk(frames)

    async def _live(self) -> Chunk | None:
        """Let the hub write to the wire, until the wire is full, the log changes its generation, or it is time to go.

        Call it in the tick in which replay was at the head. Returns a heartbeat if that was all that the wire did not take:
        it goes the slow way, which is watched for stalls. Raises Disconnected after a fault of ours.
        """
        hub, member = self._hub, self._member
        hub.join(self._request.filter, member)
        while member.live and not self.leaving:
            self._wake.clear()
            await self._wake.wait()
        hub.leave(self._request.filter, member)  # what is pulled must not meet what is pushed
        if member.failed:
            self.cut(Ended.ERROR)
            raise Disconnected
        if self.leaving or not self._replay.at_head:
            return None
        return Chunk(frame.heartbeat(hub.epoch, self.position))

    def _goodbye(self) -> Chunk | None:
        """Return the last frames; None where nobody is left to read them."""
        reason, hub = self._reason, self._hub
        if reason is None or reason is Goodbye.GONE:
            return None
        self._said = reason
        goodbye = frame.goodbye(reason, hub.retry_ms(reason is not Goodbye.DRAIN))
        if not self._opened and self._request.start == Start() and hub.ready:
            # The client never had a cursor: with this one, what it misses meanwhile is replayed.
            return Chunk(frame.pin(hub.epoch, hub.head) + goodbye)
        return Chunk(goodbye)

    def _count(self, chunk: Chunk) -> Chunk:
        """Count what the stream found for itself."""
        self._pulled += chunk.size
        self._hub.counters.pulled_bytes += chunk.size
        return chunk
