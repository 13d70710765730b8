"""The sampler: copies the plain integers that the parts of a process count into its Prometheus metrics.

Incrementing a metric for every delivery would cost too much. So the hub counts in plain integers, and once a second, and
whenever /metrics is read, the sampler adds the differences to the metrics.
"""

import asyncio
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Counter

from feed.observability.metrics import BEHIND, Metrics
from feed.supervision import Backoff, supervised

EVERY = 1.0
"""Seconds between samples."""
_SLICE = 2_000
"""Streams looked at in one turn of the event loop."""


class Reconnecting(Protocol):
    """A part of the process with a database connection of its own."""

    reconnects: int
    """Connections made after the first."""


class SampledStream(Protocol):
    """An open stream."""

    @property
    def family(self) -> str:
        """`HTTP/1.1` or `HTTP/2`."""

    @property
    def lag(self) -> int:
        """Positions behind the head of the log."""


class SampledStreams(Protocol):
    """The open streams of the process."""

    opened: Tally[str]
    """Streams opened since the process began, by protocol."""
    ended: Tally[str]
    """Streams ended since the process began, by reason."""
    draining: bool

    def __iter__(self) -> Iterator[SampledStream]: ...


class SampledCounters(Protocol):
    """What the hub has counted since the process began."""

    published: int
    deliveries: int
    bytes: int
    overruns: int
    pulled: int
    pulled_bytes: int
    replays_ring: int
    replays_log: int


class SampledHub(Protocol):
    """The hub of the process."""

    behind: int
    """Events that it knows of and has not published."""

    @property
    def counters(self) -> SampledCounters:
        """Its totals."""


class SampledHistory(Protocol):
    """The pages of the log in memory."""

    hits: int
    reads: int

    @property
    def cached_bytes(self) -> int:
        """Bytes of frames in memory."""


class SampledCanary(Protocol):
    """The canary's arrivals."""

    @property
    def age(self) -> float:
        """Seconds since the newest canary that has arrived was written."""


class SampledConnections(Protocol):
    """The open connections."""

    refused: Tally[str]
    """Connections refused since the process began, by reason."""

    def __len__(self) -> int: ...


class SampledFanoutWriter(Protocol):
    """How events are written to subscribers."""

    @property
    def way(self) -> str:
        """`io_uring`, `send` or `python`."""

    @property
    def reason(self) -> str:
        """Why in this way."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """The parts of one process whose counts become metrics."""

    hub: SampledHub
    streams: SampledStreams
    history: SampledHistory
    canary: SampledCanary | None
    connections: SampledConnections
    leading: asyncio.Event
    """Set while this process's sequencer leads."""
    reconnecting: Mapping[str, Reconnecting]
    """The parts by their label in the metric `feed_database_reconnects`."""
    fanout_writer: SampledFanoutWriter


class Sampler:
    """Updates the metrics of one process every second."""

    def __init__(self, metrics: Metrics, sampled: Sampled) -> None:
        self._metrics = metrics
        self._sampled = sampled
        self._backoff = Backoff(EVERY)
        self._moved: Tally[tuple[Counter, str]] = Tally()

    async def run(self) -> None:
        """Sample for ever."""
        await supervised("sampler", self._sample_for_ever, self._backoff)

    async def _sample_for_ever(self) -> None:
        while True:
            await self.sample()
            self._backoff.reset()
            await asyncio.sleep(EVERY)

    async def sample(self) -> None:
        """Bring the metrics up to date."""
        self._count()
        metrics, sampled = self._metrics, self._sampled
        metrics.set_fanout_writer(sampled.fanout_writer.way, sampled.fanout_writer.reason)
        metrics.lag.set(sampled.hub.behind)
        metrics.history_bytes.set(sampled.history.cached_bytes)
        metrics.leading.set(sampled.leading.is_set())
        metrics.connections.set(len(sampled.connections))
        metrics.draining.set(sampled.streams.draining)
        if sampled.canary is not None:
            metrics.canary_age.set(sampled.canary.age)
        await self._look_at_streams()

    def _count(self) -> None:
        metrics, sampled = self._metrics, self._sampled
        counters, streams, history = sampled.hub.counters, sampled.streams, sampled.history
        self._move(metrics.events, counters.published)
        self._move(metrics.overruns, counters.overruns)
        self._move(metrics.deliveries, counters.deliveries, "push")
        self._move(metrics.deliveries, counters.pulled, "pull")
        self._move(metrics.delivered_bytes, counters.bytes, "push")
        self._move(metrics.delivered_bytes, counters.pulled_bytes, "pull")
        self._move(metrics.replays, counters.replays_ring, "ring")
        self._move(metrics.replays, counters.replays_log, "log")
        self._move(metrics.replayed, counters.pulled)
        self._move(metrics.history_pages, history.hits, "hit")
        self._move(metrics.history_pages, history.reads, "read")
        for protocol, count in streams.opened.items():
            self._move(metrics.opened, count, protocol)
        for reason, count in streams.ended.items():
            self._move(metrics.ended, count, reason)
        for reason, count in sampled.connections.refused.items():
            self._move(metrics.limits, count, reason)
        for name, part in sampled.reconnecting.items():
            self._move(metrics.reconnects, part.reconnects, name)

    def _move(self, counter: Counter, count: int, label: str = "") -> None:
        """Raise a counter by what `count` has grown since last time; what an earlier process of this worker added stays."""
        more = count - self._moved[counter, label]
        if more > 0:
            self._moved[counter, label] = count
            (counter.labels(label) if label else counter).inc(more)

    async def _look_at_streams(self) -> None:
        at_most = [0] * (len(BEHIND) + 1)
        protocols: Tally[str] = Tally({"HTTP/1.1": 0, "HTTP/2": 0})
        worst = 0
        for number, stream in enumerate(self._sampled.streams, 1):
            protocols[stream.family] += 1
            lag = stream.lag
            at_most[bisect_left(BEHIND, lag)] += 1
            worst = max(worst, lag)
            if not number % _SLICE:
                await asyncio.sleep(0)
        for protocol, count in protocols.items():
            self._metrics.streams.labels(protocol).set(count)
        sums, total = {}, 0
        for bound, count in zip((*map(str, BEHIND), "+Inf"), at_most, strict=True):
            total += count
            sums[bound] = total
        self._metrics.set_behind(sums)
        self._metrics.lag_max.set(worst)
