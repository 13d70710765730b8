"""The service: holds the parts of one process and starts its background work. `feed/app.py` builds and joins them."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog

from feed.access.keys import Keys
from feed.access.revocations import Revocations
from feed.database.access import AccessStore
from feed.database.canary_writer import CanaryWriter
from feed.database.check import check
from feed.database.indexer import Indexer
from feed.database.jobs import JobStore
from feed.database.log_gauges import LogGaugeReader
from feed.database.migrate import migrate
from feed.database.mirror_keeper import MirrorKeeper
from feed.database.presence import Presence
from feed.database.retention import Retention
from feed.database.sequencer import Sequencer
from feed.database.source_gauges import SourceGaugeReader
from feed.database.sources import SourceStore
from feed.database.tailer import Tailer
from feed.fanout.canary import Canary
from feed.fanout.drain import Drain
from feed.fanout.heartbeat import Heartbeat
from feed.fanout.hub import Hub
from feed.fanout.sources import StreamSources
from feed.fanout.streams import Streams
from feed.http.gate import Gate
from feed.ingest.ingest import Ingest
from feed.observability.metrics import Metrics
from feed.observability.sampler import Sampler
from feed.settings.settings import Settings
from feed.supervision import Backoff, supervised

log = structlog.get_logger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]
"""Something that goes on in the background until it is cancelled."""


@dataclass(frozen=True, slots=True)
class Service:
    """What runs in one process; `app.state.service` while the application's lifespan lasts. `feed.app` builds it."""

    settings: Settings
    dsn: str
    hub: Hub
    heartbeat: Heartbeat
    sources: StreamSources
    streams: Streams
    drain: Drain
    store: JobStore
    access: AccessStore
    keys: Keys
    revocations: Revocations
    gate: Gate
    presence: Presence
    metrics: Metrics
    sampler: Sampler
    canary: Canary | None
    tailer: Tailer
    sequencer: Sequencer
    retention: Retention
    indexer: Indexer
    ingest: Ingest
    mirror_keeper: MirrorKeeper
    log_gauges: LogGaugeReader
    source_store: SourceStore
    source_gauges: SourceGaugeReader
    canary_writer: CanaryWriter | None
    _tasks: asyncio.TaskGroup
    _running: list[asyncio.Task[None]] = field(default_factory=list)

    def background(self) -> list[tuple[str, Work]]:
        """Everything that this process does besides answering requests, by name."""
        work: list[tuple[str, Work]] = [
            ("tailer", self.tailer.run),
            ("heartbeat", self.heartbeat.run),
            ("stream watch", self.streams.watch),
            ("sampler", self.sampler.run),
            ("revocations", self.revocations.run),
            ("presence", self.presence.run),
        ]
        if self.settings.sequencer.enabled:
            work += [
                ("sequencer", self.sequencer.run),
                ("retention", self.retention.run),
                ("search index", self.indexer.run),
                ("attached tables", self.mirror_keeper.run),
                ("log gauges", self.log_gauges.run),
                ("source gauges", self.source_gauges.run),
            ]
            if self.settings.ingest.enabled:
                work.append(("ingest", self.ingest.run))
            if self.canary_writer is not None:
                work.append(("canary writer", self.canary_writer.run))
        return work

    def start(self, name: str, work: Work) -> None:
        """Begin something in the background, which ends with the service."""
        self._running.append(self._tasks.create_task(work(), name=name))

    def stop(self) -> None:
        """Cancel everything in the background."""
        for task in self._running:
            task.cancel()

    async def prepare(self) -> None:
        """Check the database and bring its schema up to date; raises DatabaseUnavailable or DatabaseRefused."""
        await check(self.settings.database, self.dsn)
        for migration in await migrate(self.settings, self.dsn):
            log.info("migrated", version=migration.version, name=migration.name)

    async def prepare_and_start(self) -> None:
        """Prepare the database, however long that takes, then start everything in the background."""
        backoff = Backoff(self.settings.database.reconnect_max)
        await supervised("preparing the database", self.prepare, backoff, self.tailer.failed)
        self.start_all()

    def start_all(self) -> None:
        """Start everything in the background."""
        for name, work in self.background():
            self.start(name, work)
