"""The service: what runs in one process, built by constructor and owned for as long as it lasts."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import structlog

from feed import __version__
from feed.access.keys import Keys
from feed.access.revocations import Revocation, Revocations
from feed.access.secret import Secret
from feed.access.tickets import Tickets
from feed.access.tokens import Tokens
from feed.database.access import AccessStore
from feed.database.canary_writer import Pulse
from feed.database.census import Census, this_process
from feed.database.check import check
from feed.database.connect import Backoff, pool
from feed.database.embedded import embedded
from feed.database.jobs import JobStore
from feed.database.log import Log
from feed.database.log_gauges import Survey
from feed.database.migrate import migrate
from feed.database.retention import Keeper
from feed.database.sequencer import Sequencer
from feed.database.tailer import Tailer
from feed.errors import DatabaseRefused, DatabaseUnavailable
from feed.fanout.canary import Canary
from feed.fanout.drain import Drain
from feed.fanout.ending import Farewell
from feed.fanout.history import History
from feed.fanout.hub import Hub
from feed.fanout.stream_report import Roll
from feed.fanout.streams import Streams
from feed.http.gate import Gate
from feed.hypercorn_adapter.connection import Connections
from feed.limits.rates import Rates
from feed.observability.metrics import Metrics
from feed.observability.sampler import Sampled, Sampler
from feed.observability.traces import traces_of
from feed.settings.settings import Settings

log = structlog.get_logger(__name__)


class Service:
    """What runs in one process. `app.state.service` while the lifespan lasts."""

    def __init__(
        self, settings: Settings, dsn: str, store: JobStore, access: AccessStore, history: History, hub: Hub,
        connections: "asyncpg.Pool[asyncpg.Record]", metrics: Metrics, canary: Canary | None, clients: Connections,
        tasks: asyncio.TaskGroup,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.dsn = dsn
        self.store = store
        self.history = history
        self.hub = hub
        self.access = access
        self.streams = Streams(hub, settings.streams)
        # Its number is known to the logs only: one that forks workers tells no other part of them.
        here = this_process(hub.process, structlog.contextvars.get_contextvars().get("worker"))
        self.census = Census(settings, connections, Roll(hub, self.streams), here, access.revoke)
        self.keys = Keys(access, settings.access.key_cache)
        self.revocations = Revocations(access, settings.access.poll, settings.jwt.leeway, self._ended)
        self.gate = Gate(
            settings, self.keys, Tokens(settings.jwt), Tickets(access, settings.access), self.revocations, Secret(access),
            Rates(settings.limits), metrics, access.revoke,
        )  # fmt: skip
        self.drain = Drain(self.streams, settings.drain)
        self.metrics = metrics
        self.canary = canary
        self.sequencer = Sequencer(settings, dsn, metrics)
        self.keeper = Keeper(settings, dsn, self.sequencer)
        self.tailer = Tailer(settings, dsn, hub, metrics, channels={self.census.channel: self.census.hear})
        self.sampler = Sampler(
            metrics,
            Sampled(
                hub,
                self.streams,
                history,
                canary,
                clients,
                self.sequencer.leading,
                {"tailer": self.tailer, "sequencer": self.sequencer, "keeper": self.keeper},
            ),
        )
        self.survey = Survey(connections, self.sequencer, metrics)
        self.pulse: Pulse | None = None
        if settings.canary.interval is not None:
            self.pulse = Pulse(connections, self.sequencer, settings.canary.interval)
        self._tasks = tasks
        self._running: list[asyncio.Task[None]] = []

    def _ended(self, one: Revocation) -> None:
        """End the streams that a revocation concerns."""
        if one.kind == "stream":
            self.streams.end_where(lambda stream: stream.id == one.subject, Farewell.KICKED)
            return
        if one.kind == "key":
            self.keys.forget(one.subject)
        self.streams.end_where(lambda stream: self.revocations.concerns(one, stream.caller.grant), Farewell.REVOKED)

    def background(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run something for as long as the service lasts."""
        self._running.append(self._tasks.create_task(work, name=name))

    def stop(self) -> None:
        """Cancel what runs in the background."""
        for task in self._running:
            task.cancel()

    async def prepare(self) -> None:
        """Check and migrate the database; raises DatabaseUnavailable or DatabaseRefused."""
        await check(self.settings.database, self.dsn)
        for migration in await migrate(self.settings, self.dsn):
            log.info("migrated", version=migration.version, name=migration.name)

    async def run(self, prepared: bool) -> None:
        """Everything that goes on in the background, for ever; what fails starts over, and is seen."""
        backoff = Backoff(self.settings.database.reconnect_max)
        while not prepared:
            try:
                await self.prepare()
                prepared = True
            except DatabaseUnavailable as error:
                self.tailer.fault = str(error)
            except DatabaseRefused as error:
                self.tailer.fault = str(error)
                log.error("the database cannot carry the feed", error=str(error))
            except Exception as error:  # a fault of ours must not end the service: it is seen, and tried again
                self.tailer.fault = f"{type(error).__name__}: {error}"
                log.exception("preparing the database failed")
            if not prepared:
                await backoff.wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.tailer.run(), name="tailer")
            tasks.create_task(self.hub.run_heartbeat(), name="heartbeat")
            tasks.create_task(self.streams.watch(), name="stream watch")
            tasks.create_task(self.sampler.run(), name="sampler")
            tasks.create_task(self.revocations.run(), name="revocations")
            tasks.create_task(self.census.run(), name="census")
            if self.settings.sequencer.enabled:
                tasks.create_task(self.sequencer.run(), name="sequencer")
                tasks.create_task(self.keeper.run(), name="keeper")
                tasks.create_task(self.survey.run(), name="survey")
                if self.pulse is not None:
                    tasks.create_task(self.pulse.run(), name="pulse")


@asynccontextmanager
async def running(settings: Settings, metrics: Metrics, clients: Connections) -> AsyncIterator[Service]:
    """Build and run the service. Starts without its database too, if that may yet come; raises if it never can."""
    async with AsyncExitStack() as stack:
        dsn = settings.database.url
        if dsn is None:
            dsn = await stack.enter_async_context(embedded(settings.database.data_dir))
        connections = await stack.enter_async_context(pool(settings.database, dsn))
        # Of its own: whoever holds all the others with slow lists must not keep revocations and keys waiting.
        few = settings.database.model_copy(update={"pool_size": settings.database.access_pool_size})
        of_access = await stack.enter_async_context(pool(few, dsn))
        traces = traces_of(__version__)
        stack.push_async_callback(asyncio.to_thread, traces.close)
        canary = None
        if settings.canary.interval is not None:
            canary = Canary(metrics.canary_seconds.observe)
        hub = Hub(settings, canary, traces)
        history = await stack.enter_async_context(
            History(Log(connections), settings.replay.page, settings.replay.cache, settings.replay.reads)
        )
        async with asyncio.TaskGroup() as tasks:
            service = Service(
                settings, dsn, JobStore(connections, traces), AccessStore(of_access), history, hub, of_access, metrics,
                canary, clients, tasks,
            )  # fmt: skip
            prepared = True
            try:
                await service.prepare()
            except DatabaseUnavailable as error:
                prepared = False
                log.warning("starting without the database", error=str(error))
            service.background(service.run(prepared), name="service")
            await _settled(service, prepared)
            yield service
            service.stop()
        await service.census.leave()


async def _settled(service: Service, prepared: bool) -> None:
    """Give the tailer a moment to meet the head, so that the first client is not told to come back."""
    if not prepared:
        return
    try:
        async with asyncio.timeout(service.settings.database.connect_timeout):
            while not service.hub.ready:
                await asyncio.sleep(0.005)
    except TimeoutError:
        log.warning("the log is not followed yet", reason=service.tailer.fault)
