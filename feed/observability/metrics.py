"""The metrics: every instrument by its name, as dashboards and alerts know it.

The modes of the gauges say what several workers amount to: their sum, their worst, or what the last one said that had to
say it. Counters and histograms add up.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from feed.observability.shared_metrics import folder
from feed.observability.source_metrics import SourceMetrics

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""Upper bounds in seconds."""
BEHIND = (0, 10, 100, 1_000, 10_000)
"""Positions behind the head at which subscribers are counted."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class LogGauges:
    """What the leader asks the database now and then; ages in seconds."""

    head: int
    floor: int
    log_age: float
    inbox_age: float
    queue_usage: float
    search_backlog: int


class Metrics:
    """The instruments of one process, in a registry of its own."""

    def __init__(self, version: str) -> None:
        # Lines that say when each counter began: several processes have none.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(name, says, labels, registry=registry)

        def total(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(name, says, labels, registry=registry, multiprocess_mode="livesum")

        def worst(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(name, says, labels, registry=registry, multiprocess_mode="livemax")

        def latest(name: str, says: str) -> Gauge:
            return Gauge(name, says, registry=registry, multiprocess_mode="livemostrecent")

        def seconds(name: str, says: str) -> Histogram:
            return Histogram(name, says, buckets=BUCKETS, registry=registry)

        worst("feed_info", "Always 1; the version of the service.", "version").labels(version).set(1)
        self._fanout_writer = worst(
            "feed_fanout_writer",
            "1 for how events are written to subscribers (io_uring, send or python), and why in this way.",
            "way", "reason",
        )  # fmt: skip
        self._written_by: tuple[str, str] | None = None
        self.streams = total("feed_streams", "Open streams.", "protocol")
        self.opened = counter("feed_streams_opened", "Streams that were opened.", "protocol")
        self.ended = counter("feed_streams_ended", "Streams that ended.", "reason")
        self.deliveries = counter(
            "feed_deliveries",
            "Events handed to subscribers: live ones (push), or read by the stream itself (pull).",
            "way",
        )
        self.delivered_bytes = counter("feed_delivered_bytes", "Bytes of frames handed to subscribers.", "way")
        self.events = counter("feed_events", "Events of the log handed on, each once in every process.")
        self.overruns = counter("feed_overruns", "Times a live subscriber did not keep up and went on by pulling.")
        self.capture_to_log = seconds(
            "feed_capture_to_log_seconds",
            "From the oldest row of a batch (when it was written) to its place in the log.",
        )
        self.log_to_hub = seconds(
            "feed_log_to_hub_seconds", "From the log to the process that read it, of the first event of a page."
        )
        self.hub_to_socket = seconds(
            "feed_hub_to_socket_seconds", "From the hub to the last subscriber's socket, of a batch."
        )
        self.delivery = seconds(
            "feed_delivery_seconds",
            "From a row (when it was written) to the last live socket, of a page's first event.",
        )
        self.canary_seconds = seconds("feed_canary_seconds", "From a canary's row to the process that saw it arrive.")
        self.canary_age = worst("feed_canary_age_seconds", "Since the newest canary that has arrived was written.")
        self.lag = worst("feed_lag_events", "Events of the log that a process knows of and has not handed on.")
        self.behind = total(
            "feed_subscribers_behind", "Open subscribers at most so many positions behind the head.", "at_most"
        )
        self.lag_max = worst("feed_subscriber_lag_events_max", "Positions that the last of the subscribers is behind.")
        self.replays = counter("feed_replays", "Replays, by where they read.", "source")
        self.replayed = counter("feed_replayed_events", "Events that replays handed to subscribers.")
        self.history_pages = counter("feed_history_pages", "Pages of the log that replays asked for.", "result")
        self.history_bytes = total("feed_history_cache_bytes", "Pages of the log in memory.")
        self.leading = total("feed_sequencer_leading", "Processes whose sequencer leads: 1, or 0 for a moment.")
        self._inbox_age = latest("feed_inbox_age_seconds", "Age of the oldest committed row that has no position yet.")
        self._log_head = latest("feed_log_head", "The newest position.")
        self._log_floor = latest("feed_log_floor", "The last position that retention has taken.")
        self._log_age = latest("feed_log_age_seconds", "Age of the oldest event that is kept.")
        self._search_backlog = latest(
            "feed_search_backlog",
            "Events, and postings from before it, that the search index of the lists has yet to enter.",
        )
        self._queue_usage = latest("feed_notification_queue_usage", "Share of Postgres's notification queue in use.")
        self.reconnects = counter("feed_database_reconnects", "Connections to the database made anew.", "part")
        self._requests = counter(
            "feed_requests", "Requests answered; a stream counts once.", "method", "route", "status"
        )
        self._of_request: dict[tuple[str, str, int], Any] = {}  # the series of answers; finding one takes microseconds
        self.limits = counter("feed_limited", "Requests, streams and connections refused by a limit.", "limit")
        self._refused = counter("feed_credentials_refused", "Credentials that were not good.", "reason")
        self.sources = SourceMetrics(registry)
        self.connections = total("feed_connections", "Open connections.")
        self.draining = worst("feed_draining", "1 while a process says goodbye to its streams.")
        self._present()

    def _present(self) -> None:
        """Show what has not happened yet as 0: an alert on a series that is not there never fires."""
        for protocol in ("HTTP/1.1", "HTTP/2"):
            self.streams.labels(protocol)
            self.opened.labels(protocol)
        for way in ("push", "pull"):
            self.deliveries.labels(way)
            self.delivered_bytes.labels(way)
        for source in ("ring", "log"):
            self.replays.labels(source)
        for result in ("hit", "read"):
            self.history_pages.labels(result)
        for part in ("tailer", "sequencer", "retention", "indexer"):
            self.reconnects.labels(part)
        for bound in (*map(str, BEHIND), "+Inf"):
            self.behind.labels(bound)
        if folder() is None:
            ProcessCollector(registry=self._registry)

    def request(self, method: str, route: str, status: int) -> None:
        """One more request was answered; `route` is the template of its path."""
        series = self._of_request.get((method, route, status))
        if series is None:
            named = method if method in METHODS else "other"
            series = self._requests.labels(named, route, str(status))
            if named == method:  # clients make up others without end
                self._of_request[method, route, status] = series
        series.inc()

    def limited(self, limit: str) -> None:
        """One more was refused by a limit; `limit` is its name, of a fixed set."""
        self.limits.labels(limit).inc()

    def refused(self, reason: str) -> None:
        """One more credential was refused; `reason` is a word, of a fixed set."""
        self._refused.labels(reason).inc()

    def forget_log(self) -> None:
        """Withdraw the ages of the log, which this process no longer reads: an old value must not page anybody for ever."""
        for gauge in (self._inbox_age, self._log_age, self._queue_usage, self._search_backlog):
            gauge.set(math.nan)

    def set_log(self, found: LogGauges) -> None:
        """Set the gauges of the log to what the database said just now."""
        self._log_head.set(found.head)
        self._log_floor.set(found.floor)
        self._log_age.set(found.log_age)
        self._inbox_age.set(found.inbox_age)
        self._queue_usage.set(found.queue_usage)
        self._search_backlog.set(found.search_backlog)

    def set_behind(self, counts: Mapping[str, int]) -> None:
        """Subscribers by how far behind they are at most."""
        for bound, count in counts.items():
            self.behind.labels(bound).set(count)

    def set_fanout_writer(self, way: str, reason: str) -> None:
        """Show how events are written to subscribers, and why."""
        if self._written_by is not None and self._written_by != (way, reason):
            self._fanout_writer.labels(*self._written_by).set(0)
        self._written_by = way, reason
        self._fanout_writer.labels(way, reason).set(1)

    def render(self) -> tuple[bytes, str]:
        """All of it, of all processes that share, in Prometheus's text format; and its content type. May take 10 ms."""
        shared = folder()
        if shared is None:
            return generate_latest(self._registry), CONTENT_TYPE_LATEST
        together = CollectorRegistry()
        MultiProcessCollector(together, path=shared)  # type: ignore[no-untyped-call]
        return generate_latest(together), CONTENT_TYPE_LATEST
