"""The sampler: moves what the parts of a process count for themselves, in plain integers, into its metrics.

What happens for every delivery is counted by the hub as it always was; once a second, and when somebody asks, the
differences go into the counters.
"""

import asyncio
from bisect import bisect_left
from collections import Counter as Tally

import structlog
from prometheus_client import Counter

from feed.database.keeper import Keeper
from feed.database.sequencer import Sequencer
from feed.database.tailer import Tailer
from feed.fanout.canary import Canary
from feed.fanout.history import History
from feed.fanout.hub import Hub
from feed.fanout.streams import Streams, family
from feed.metrics.metrics import BEHIND, Metrics
from feed.wire.connection import Connections

log = structlog.get_logger(__name__)

EVERY = 1.0
"""Seconds between samples."""
_SLICE = 2_000
"""Streams looked at in one turn of the event loop."""


class Sampler:
    """Looks at one process."""

    def __init__(
        self, metrics: Metrics, hub: Hub, streams: Streams, history: History, canary: Canary | None, tailer: Tailer,
        sequencer: Sequencer, keeper: Keeper, connections: Connections,
    ) -> None:  # fmt: skip
        self._metrics = metrics
        self._hub = hub
        self._streams = streams
        self._history = history
        self._canary = canary
        self._tailer = tailer
        self._sequencer = sequencer
        self._keeper = keeper
        self._connections = connections
        self._moved: Tally[tuple[Counter, str]] = Tally()

    async def run(self) -> None:
        """Sample for ever."""
        while True:
            try:
                await self.sample()
            except Exception:  # a fault of ours must not end the feed: it is seen
                log.exception("sampling failed")
            await asyncio.sleep(EVERY)

    async def sample(self) -> None:
        """Bring the metrics up to date."""
        self._count()
        metrics, hub = self._metrics, self._hub
        metrics.lag.set(hub.behind)
        metrics.history_bytes.set(self._history.cached_bytes)
        metrics.leading.set(self._sequencer.leading.is_set())
        metrics.connections.set(len(self._connections))
        metrics.draining.set(self._streams.draining)
        if self._canary is not None:
            metrics.canary_age.set(self._canary.age)
        await self._look_at_streams()

    def _count(self) -> None:
        metrics, counters, streams, history = self._metrics, self._hub.counters, self._streams, self._history
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
        for reason, count in self._connections.refused.items():
            self._move(metrics.limits, count, reason)
        for part, name in ((self._tailer, "tailer"), (self._sequencer, "sequencer"), (self._keeper, "keeper")):
            self._move(metrics.reconnects, part.reconnects, name)

    def _move(self, counter: Counter, count: int, label: str = "") -> None:
        """Bring a counter to `count`, which began with this process; a predecessor's share stays in it."""
        more = count - self._moved[counter, label]
        if more > 0:
            self._moved[counter, label] = count
            (counter.labels(label) if label else counter).inc(more)

    async def _look_at_streams(self) -> None:
        at_most = [0] * (len(BEHIND) + 1)
        protocols: Tally[str] = Tally({"HTTP/1.1": 0, "HTTP/2": 0})
        worst = 0
        for number, stream in enumerate(self._streams, 1):
            protocols[family(stream.caller.protocol)] += 1
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
