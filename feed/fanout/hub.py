"""The hub: takes batches of events from a source, keeps the ring, and hands every live subscriber its frames."""

import asyncio
import itertools
import random
import secrets
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from feed.fanout.canary import Canary
from feed.fanout.encoded_event import EncodedEvent
from feed.fanout.group import Group, Groups
from feed.fanout.ring import Ring
from feed.fanout.subscriber import Subscriber
from feed.model.event import Event, Kind
from feed.model.filter import Filter
from feed.model.frame import heartbeat
from feed.observability.traces import NO_TRACES, Traces
from feed.settings.fanout import HubSettings
from feed.wire.chunk import PIECE, Chunk
from feed.wire.pacer import Pacer

if TYPE_CHECKING:
    from feed.wire.native._batch import Writer

log = structlog.get_logger(__name__)


_REPLAY_SECONDS = 0.001
"""Seconds of a turn of the event loop that one stream replays for, before live events have theirs."""


@dataclass(slots=True)
class Counters:
    """What the hub has done since it started."""

    published: int = 0
    deliveries: int = 0  # events that live subscribers took
    bytes: int = 0  # bytes that live subscribers took, with heartbeats
    overruns: int = 0  # subscribers that left the live set because they did not take a chunk
    pulled: int = 0  # events that streams read from the ring or the log
    pulled_bytes: int = 0  # bytes of these, and of all other frames that streams pull
    replays_ring: int = 0  # replays that read the ring
    replays_log: int = 0  # replays that read the log


class Hub:
    """The hub of a process. It awaits no subscriber: each call is done within one turn of the event loop."""

    def __init__(
        self, settings: HubSettings, canary: Canary | None = None, traces: Traces = NO_TRACES,
        writer: "Writer | None" = None,
    ) -> None:  # fmt: skip
        """Make the hub. `writer` writes to all members of a group at once; None leaves that to each one's transport."""
        self._settings = settings
        self.heartbeat = settings.heartbeat  # seconds of silence after which a stream gets one
        self.traces = traces
        self._canary = canary
        self.process = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self.ring = Ring(settings.ring_events, settings.ring_bytes)
        self.groups = Groups(writer)
        self.counters = Counters()
        self.ready = False  # whether a source has met the head of the log
        self.epoch = 0
        self.head = 0
        self.generation = 0  # goes up when the log is replaced by another one: positions of older generations are void
        self.behind = 0  # events that the source knows of and has not published yet
        self.replays = Pacer(seconds=_REPLAY_SECONDS)
        self._waiting: set[asyncio.Event] = set()

    def next_id(self) -> str:
        """Return an id for a stream, unique among all processes. It begins with the id of this one."""
        return f"{self.process}-{next(self._numbers):x}"

    def restart_at(self, epoch: int, position: int) -> None:
        """Start, or start over, behind `position`. All subscribers leave the live set; once ready, a new generation begins.

        The source sets `ready` when it has met the head of the log.
        """
        if self.ready:
            self.generation += 1
        self.epoch = epoch
        self.head = position
        self.behind = 0
        self.ring.clear()
        for group in list(self.groups):
            for member in group.members:
                self.leave(group.filter, member)
        self._wake_waiting()

    def continue_as(self, epoch: int) -> None:
        """Go on under a new epoch that shares all positions so far: nobody is disturbed."""
        self.epoch = epoch

    def publish(self, events: Sequence[Event]) -> None:
        """Hand the next dense positions to the live subscribers: one write for each, not one for each event.

        A subscriber that does not take its frames leaves the live set. Where a subscriber or a filter raises, the streams
        concerned end, and everybody else gets the batch.
        """
        batch = [EncodedEvent(self.epoch, event) for event in events]
        self.ring.extend(batch)
        self.head = batch[-1].position
        self.behind = max(0, self.behind - len(batch))
        if self.ready:  # else the source is only filling the ring
            self.counters.published += len(batch)
        now = asyncio.get_running_loop().time()
        for group, concerned in self._candidates(batch).items():
            try:
                frames, reached = group.select(concerned)
            except Exception as error:
                self._fail(group, error)
                continue
            if not frames:
                continue
            chunks = list(_chunks(frames, reached, self.head))
            if len(chunks) == 1:
                chunk, upto = chunks[0]
                size = chunk.size
                # What is larger is pulled, piece by piece.
                refused = group.offer(chunk, upto, now) if size <= PIECE else group.members
            else:
                refused = [member for member in group.members if not _offer(member, chunks, now)]
                size = sum(chunk.size for chunk, _ in chunks)
            given = len(group) - len(refused)
            self.counters.deliveries += len(frames) * given
            self.counters.bytes += size * given
            for member in refused:
                self.counters.overruns += 1
                if len(chunks) > 1:
                    self._count_what_was_taken(member, chunks, reached)
                self.leave(group.filter, member)
            # After those who refused have left: this does not count for them.
            group.totals.add(len(frames), size)
            group.totals.reach(self.head, now)
        self._wake_waiting()
        if self._canary is not None:
            self._time_canaries(events)

    def _candidates(self, batch: Sequence[EncodedEvent]) -> Mapping[Group, Sequence[EncodedEvent]]:
        """The groups that may want events of the batch, with these events; all of them where the index fails."""
        try:
            return self.groups.candidates(batch)
        except Exception:
            log.exception("events could not be indexed", first=batch[0].position, last=batch[-1].position)
            return dict.fromkeys(self.groups, batch)

    def _fail(self, group: Group, error: Exception) -> None:
        """End the streams of a group whose filter could not be asked about a batch."""
        log.error("a filter failed", filter=group.filter, subscribers=len(group), exc_info=error)
        for member in group.members:
            member.failed = True
            self.leave(group.filter, member)

    def _count_what_was_taken(
        self, member: Subscriber, chunks: Sequence[tuple[Chunk, int]], reached: Sequence[int]
    ) -> None:
        """Count what a member took of a batch before it refused the rest."""
        events = bisect_right(reached, member.position)
        size = sum(chunk.size for chunk, upto in chunks if upto <= member.position)
        member.count(events, size)
        self.counters.deliveries += events
        self.counters.bytes += size

    def _time_canaries(self, events: Sequence[Event]) -> None:
        """Show the canaries of a batch to the one who measures them, after all subscribers were served."""
        for event in events:
            if event.kind is Kind.CANARY and self._canary is not None:
                self._canary.note_arrival(event)

    def join(self, wanted: Filter, member: Subscriber) -> None:
        """Make a subscriber live. Its position must be the head: nothing may be awaited after that was checked."""
        member.live = True
        member.told_at = asyncio.get_running_loop().time()
        self.groups.join(wanted, member)

    def leave(self, wanted: Filter, member: Subscriber) -> None:
        """Take a subscriber out of the live set, and wake its stream. One that is not live is left alone."""
        if member.live:
            member.live = False
            self.groups.leave(wanted, member)
            member.wake.set()

    def beat(self, now: float) -> None:
        """Send a heartbeat to every live subscriber that was told nothing for `heartbeat` seconds; `now` is loop time."""
        chunk = Chunk(heartbeat(self.epoch, self.head))
        silent = now - self.heartbeat
        for group in list(self.groups):
            if group.totals.told_at > silent:
                continue
            for member in group.members:
                if member.told_at > silent:
                    continue
                if member.offer(chunk, self.head, now):
                    member.count(0, chunk.size)
                    self.counters.bytes += chunk.size
                else:
                    self.leave(group.filter, member)

    def await_change(self, wake: asyncio.Event) -> None:
        """Set `wake` when the head moves next, or the hub starts over."""
        self._waiting.add(wake)

    def forget(self, wake: asyncio.Event) -> None:
        """Do not set `wake` any more."""
        self._waiting.discard(wake)

    def retry_ms(self, busy: bool = False) -> int:
        """Return a random time after which a client is to come back, in milliseconds; never 0."""
        settings = self._settings
        low, high = (settings.retry_max, settings.retry_busy) if busy else (settings.retry_min, settings.retry_max)
        return max(1, round(random.uniform(low, max(low, high)) * 1000))

    def _wake_waiting(self) -> None:
        for wake in self._waiting:
            wake.set()
        self._waiting.clear()


def _chunks(frames: Sequence[bytes], positions: Sequence[int], head: int) -> Iterator[tuple[Chunk, int]]:
    """Yield chunks of at most PIECE bytes, or of one frame, each with the position that it reaches: the last, `head`."""
    begin, size = 0, len(frames[0])
    for number in range(1, len(frames)):
        if size + len(frames[number]) > PIECE:
            yield Chunk(b"".join(frames[begin:number])), positions[number - 1]
            begin, size = number, 0
        size += len(frames[number])
    yield Chunk(frames[0] if len(frames) == 1 else b"".join(frames[begin:])), head


def _offer(member: Subscriber, chunks: Sequence[tuple[Chunk, int]], now: float) -> bool:
    """Offer chunks until one is not taken, or is too large to be pushed; returns whether all were taken."""
    return all(chunk.size <= PIECE and member.offer(chunk, upto, now) for chunk, upto in chunks)
