"""The hub: takes batches from a source, keeps the ring, and hands every live subscriber its frames."""

import asyncio
import itertools
import random
import secrets
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from feed.fanout.canary import Canary
from feed.fanout.encoded import Encoded
from feed.fanout.group import Groups
from feed.fanout.replay_blocks import Joined
from feed.fanout.ring import Ring
from feed.fanout.subscriber import PIECE, Queued, Subscriber
from feed.model.event import Event, Kind
from feed.model.filter import Filter
from feed.model.frame import heartbeat
from feed.observability.traces import NO_TRACES, Traces
from feed.settings.settings import Settings
from feed.wire.chunk import Chunk
from feed.wire.pacer import Pacer

_WAVE = 8
"""Subscribers woken in one turn of the event loop."""


@dataclass(slots=True)
class Counters:
    """What the hub has done since it started."""

    published: int = 0
    deliveries: int = 0  # events handed to live subscribers
    bytes: int = 0  # the same, with heartbeats
    overruns: int = 0
    pulled: int = 0  # events that streams read from the ring or the log
    pulled_bytes: int = 0  # of these, and of all else that a stream says by itself
    replays_ring: int = 0
    replays_log: int = 0


class Hub:
    """One per process. Everything here happens within one tick of the event loop; nothing awaits a subscriber."""

    def __init__(self, settings: Settings, canary: Canary | None = None, traces: Traces = NO_TRACES) -> None:
        self.settings = settings
        self.traces = traces
        self._canary = canary
        self.process = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self.ring = Ring(settings.ring_events, settings.ring_bytes)
        self.joined = Joined(settings.joined_bytes)
        self.groups = Groups()
        self.counters = Counters()
        self.ready = False  # a source has said where the head is
        self.epoch = 0
        self.head = 0
        self.course = 0  # counts the times the log took another course: positions before are void
        self.behind = 0  # events that the source knows of and has not published yet
        self.replays = Pacer()
        self._waiting: set[asyncio.Event] = set()
        self._asleep: deque[Queued] = deque()  # who has been given something and not been woken yet

    def next_id(self) -> str:
        """A stream's id, its own among all processes on all machines; it begins with the process's."""
        return f"{self.process}-{next(self._numbers):x}"

    def begin(self, epoch: int, position: int) -> None:
        """A source starts (or starts over) after `position`; it sets `ready` once it has met the log's head."""
        if self.ready:
            self.course += 1
        self.epoch = epoch
        self.head = position
        self.behind = 0
        self.ring.clear()
        self.joined.clear()
        for group in list(self.groups):
            for member in list(group.members):
                self.leave(group.filter, member)
        self._wake_waiting()

    def rename(self, epoch: int) -> None:
        """The log goes on unbroken under a new epoch."""
        self.epoch = epoch

    def publish(self, events: Sequence[Event]) -> None:
        """Hand on the next dense positions: one write for each subscriber, not one for each event."""
        batch = [Encoded(self.epoch, event) for event in events]
        self.ring.extend(batch)
        self.head = batch[-1].position
        self.behind = max(0, self.behind - len(batch))
        if self.ready:  # what fills the ring of a hub that starts is no news
            self.counters.published += len(batch)
        now = asyncio.get_running_loop().time()
        for group, concerned in self.groups.candidates(batch).items():
            frames, reached = group.select(concerned)
            if not frames:
                continue
            chunks = list(_chunks(frames, reached, self.head))
            if len(chunks) == 1:
                chunk, upto = chunks[0]
                refused = [member for member in group.members if not member.offer(chunk, upto, now)]
                size = chunk.size
            else:
                refused = [member for member in group.members if not _offer(member, chunks, now)]
                size = sum(chunk.size for chunk, _ in chunks)
            given = len(group.members) - len(refused)
            self.counters.deliveries += len(frames) * given
            self.counters.bytes += size * given
            for member in refused:
                self.counters.overruns += 1
                if len(chunks) > 1:
                    self._charge(member, chunks, reached)
                self.leave(group.filter, member)
            group.account.add(len(frames), size)  # after they have left: it is nothing of theirs
        if self._canary is not None:
            self._show(batch)
        self._wake_waiting()

    def _charge(self, member: Subscriber, chunks: Sequence[tuple[Chunk, int]], reached: Sequence[int]) -> None:
        """Count what a member took of a batch before it refused the rest."""
        events = bisect_right(reached, member.position)
        size = sum(chunk.size for chunk, upto in chunks if upto <= member.position)
        member.charge(events, size)
        self.counters.deliveries += events
        self.counters.bytes += size

    def _show(self, batch: Sequence[Encoded]) -> None:
        """Hand a canary to whoever times them, behind all subscribers."""
        for one in batch:
            if one.event.kind is Kind.CANARY and self._canary is not None:
                self._canary.arrive(one.event)

    def join(self, wanted: Filter, member: Subscriber, position: int) -> None:
        """Make a subscriber live. Call it in the tick in which `position` was seen to be the head."""
        member.position = position
        member.live = True
        member.told_at = asyncio.get_running_loop().time()
        self.groups.join(wanted, member)

    def leave(self, wanted: Filter, member: Subscriber) -> None:
        """Take a subscriber out of the live set; what it was given stays with it."""
        if member.live:
            member.live = False
            self.groups.leave(wanted, member)
            member.wake.set()

    def beat(self, now: float) -> None:
        """Tell every live subscriber that has heard nothing for the interval where the head is; `now` is loop time."""
        chunk = Chunk(heartbeat(self.epoch, self.head))
        silent = now - self.settings.heartbeat
        for group in list(self.groups):
            for member in list(group.members):
                if member.told_at > silent:
                    continue
                if member.offer(chunk, self.head, now):
                    member.charge(0, chunk.size)
                    self.counters.bytes += chunk.size
                else:
                    self.leave(group.filter, member)

    async def run_heartbeat(self) -> None:
        """The one timer of all subscribers."""
        tick = min(1.0, self.settings.heartbeat / 5)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(tick)
            if self.ready:
                self.beat(loop.time())

    def await_change(self, wake: asyncio.Event) -> None:
        """Set `wake` when the head moves next."""
        self._waiting.add(wake)

    def forget(self, wake: asyncio.Event) -> None:
        """No longer."""
        self._waiting.discard(wake)

    def retry_ms(self, busy: bool = False) -> int:
        """A jittered time after which to come back, in milliseconds; never 0."""
        settings = self.settings
        low, high = (settings.retry_max, settings.retry_busy) if busy else (settings.retry_min, settings.retry_max)
        return max(1, round(random.uniform(low, max(low, high)) * 1000))

    def rouse(self, member: Queued) -> None:
        """Wake it in its wave: the first bytes leave while the last streams have yet to run."""
        member.queued = True
        self._asleep.append(member)
        if len(self._asleep) == 1:
            asyncio.get_running_loop().call_soon(self._next_wave)

    def _next_wave(self) -> None:
        for _ in range(min(_WAVE, len(self._asleep))):
            member = self._asleep.popleft()
            member.queued = False
            member.wake.set()
        if self._asleep:
            asyncio.get_running_loop().call_soon(self._next_wave)

    def _wake_waiting(self) -> None:
        for wake in self._waiting:
            wake.set()
        self._waiting.clear()


def _chunks(frames: Sequence[bytes], positions: Sequence[int], head: int) -> Iterator[tuple[Chunk, int]]:
    """The frames, joined to chunks of at most PIECE bytes, and the position that each reaches: the last `head`."""
    begin, size = 0, len(frames[0])
    for number in range(1, len(frames)):
        if size + len(frames[number]) > PIECE:
            yield Chunk(b"".join(frames[begin:number])), positions[number - 1]
            begin, size = number, 0
        size += len(frames[number])
    yield Chunk(frames[0] if len(frames) == 1 else b"".join(frames[begin:])), head


def _offer(member: Subscriber, chunks: Sequence[tuple[Chunk, int]], now: float) -> bool:
    """Hand over as many as are taken; whether that was all."""
    return all(member.offer(chunk, upto, now) for chunk, upto in chunks)
