"""The composition root: builds everything, wires it by constructor, and owns it for the life of the process."""

import asyncio
import gc
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

import asyncpg
import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from feed import __version__
from feed.access.keys import Keys
from feed.access.rates import Rates
from feed.access.revocations import Revocation, Revocations, concerns
from feed.access.secret import Secret
from feed.access.tickets import Tickets
from feed.access.tokens import Tokens
from feed.database.access import AccessStore
from feed.database.census import Census, this_process
from feed.database.check import check
from feed.database.connect import Backoff, pool
from feed.database.embedded import embedded
from feed.database.jobs import JobStore
from feed.database.keeper import Keeper
from feed.database.log import Log
from feed.database.migrate import migrate
from feed.database.pulse import Pulse
from feed.database.sequencer import Sequencer
from feed.database.survey import Survey
from feed.database.tailer import Tailer
from feed.errors import DatabaseRefused, DatabaseUnavailable, FeedError
from feed.fanout.canary import Canary
from feed.fanout.drain import Drain
from feed.fanout.history import History
from feed.fanout.hub import Hub
from feed.fanout.roll import Roll
from feed.fanout.stream import Farewell
from feed.fanout.streams import Streams
from feed.http import health, jobs, metrics, openapi, page, probe, problems, sessions, stream, subscribers
from feed.http.gate import Gate
from feed.http.origin import Origins
from feed.http.requests import Requests
from feed.logs import configure
from feed.metrics.metrics import Metrics
from feed.sampler import Sampler
from feed.settings import Settings, load_settings
from feed.traces import traces_of
from feed.wire.connection import Connections, remember_connection
from feed.wire.shutdown import drained

log = structlog.get_logger(__name__)

_COLLECT = 50_000, 20, 20
"""Thresholds of the garbage collector: with Python's own, half of the time in which streams open went into looking at those
that are open (`python -m tests.bench --only accept`)."""

_ABOUT = """Job postings as server-sent events, the second they are committed.

Try it: `curl -N http://127.0.0.1:8000/v1/jobs/stream` in one terminal, and in another

    curl http://127.0.0.1:8000/v1/jobs -H 'content-type: application/json' \\
      -d '{"title": "Site Reliability Engineer", "company": "Acme", "url": "https://acme.example/jobs/42"}'
"""


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
        self.streams = Streams(hub, settings)
        # Its number is known to the logs only: one that forks workers tells no other part of them.
        here = this_process(hub.process, structlog.contextvars.get_contextvars().get("worker"))
        self.census = Census(settings, connections, Roll(hub, self.streams), here, access.revoke)
        self.keys = Keys(access, settings.key_cache)
        self.revocations = Revocations(access, settings.access_poll, self._ended)
        self.gate = Gate(
            settings, self.keys, Tokens(settings), Tickets(access, settings), self.revocations, Secret(access),
            Rates(settings), access.revoke,
        )  # fmt: skip
        self.drain = Drain(self.streams, settings)
        self.metrics = metrics
        self.canary = canary
        self.sequencer = Sequencer(settings, dsn, metrics)
        self.keeper = Keeper(settings, dsn, self.sequencer)
        self.tailer = Tailer(settings, dsn, hub, metrics, channels={self.census.channel: self.census.hear})
        self.sampler = Sampler(
            metrics, hub, self.streams, history, canary, self.tailer, self.sequencer, self.keeper, clients
        )
        self.survey = Survey(connections, self.sequencer, metrics)
        self.pulse: Pulse | None = None
        if settings.canary_interval is not None:
            self.pulse = Pulse(connections, self.sequencer, settings.canary_interval)
        self._tasks = tasks
        self._running: list[asyncio.Task[None]] = []

    def _ended(self, one: Revocation) -> None:
        """End the streams that a revocation concerns."""
        if one.kind == "stream":
            self.streams.end_where(lambda stream: stream.id == one.subject, Farewell.KICKED)
            return
        if one.kind == "key":
            self.keys.forget(one.subject)
        self.streams.end_where(lambda stream: concerns(one, stream.caller.grant), Farewell.REVOKED)

    def background(self, work: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run something for as long as the service lasts."""
        self._running.append(self._tasks.create_task(work, name=name))

    def stop(self) -> None:
        """Cancel what runs in the background."""
        for task in self._running:
            task.cancel()

    async def prepare(self) -> None:
        """Check and migrate the database; raises DatabaseUnavailable or DatabaseRefused."""
        await check(self.settings, self.dsn)
        for migration in await migrate(self.settings, self.dsn):
            log.info("migrated", version=migration.version, name=migration.name)

    async def run(self, prepared: bool) -> None:
        """Everything that goes on in the background, for ever; what fails starts over, and is seen."""
        backoff = Backoff(self.settings.reconnect_max)
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
            if self.settings.sequencer:
                tasks.create_task(self.sequencer.run(), name="sequencer")
                tasks.create_task(self.keeper.run(), name="keeper")
                tasks.create_task(self.survey.run(), name="survey")
                if self.pulse is not None:
                    tasks.create_task(self.pulse.run(), name="pulse")


@asynccontextmanager
async def running(settings: Settings, metrics: Metrics, clients: Connections) -> AsyncIterator[Service]:
    """Build and run the service. Starts without its database too, if that may yet come; raises if it never can."""
    async with AsyncExitStack() as stack:
        dsn = settings.database_url
        if dsn is None:
            dsn = await stack.enter_async_context(embedded(settings.data_dir))
        connections = await stack.enter_async_context(pool(settings, dsn))
        traces = traces_of(__version__)
        stack.push_async_callback(asyncio.to_thread, traces.close)
        canary = None
        if settings.canary_interval is not None:
            canary = Canary(metrics.canary_seconds.observe)
        hub = Hub(settings, canary, traces)
        history = await stack.enter_async_context(
            History(Log(connections), settings.history_page, settings.history_cache, settings.history_reads)
        )
        async with asyncio.TaskGroup() as tasks:
            service = Service(
                settings, dsn, JobStore(connections, traces), AccessStore(connections), history, hub, connections, metrics,
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
        async with asyncio.timeout(service.settings.connect_timeout):
            while not service.hub.ready:
                await asyncio.sleep(0.005)
    except TimeoutError:
        log.warning("the log is not followed yet", reason=service.tailer.fault)


class Application(FastAPI):
    """FastAPI, with the connection under each request at hand: no middleware of its own lies further out."""

    connections: Connections
    requests: Requests

    async def drain(self) -> None:
        """End every stream; the connections that are left have `drain_requests` to end by themselves."""
        service: Service = self.state.service
        await service.drain.run()
        asyncio.get_running_loop().call_later(service.settings.drain_requests, self.connections.cut)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "http":
            self.connections.add(remember_connection(scope, send).server)
            await self.requests(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, inside of what goes around it."""
        await super().__call__(scope, receive, send)


def create_app(settings: Settings, *, drains: bool = False) -> Application:
    """The application. `drains`: whoever serves it awaits `app.drain()` before it stops serving."""
    configure(settings.log_level, settings.log_format)
    instruments = Metrics(__version__)

    @asynccontextmanager
    async def lifespan(app: Application) -> AsyncIterator[None]:
        try:
            async with running(settings, instruments, app.connections) as service:
                app.state.service = service
                _mount(app, service)
                gc.collect()
                gc.freeze()  # what start-up made stays: no collection need look at it again
                gc.set_threshold(*_COLLECT)
                with nullcontext() if drains else drained(app.drain):
                    yield
                await service.drain.run()  # where nobody drained before
        except* FeedError as group:
            app.state.refusal = _first(group)
            raise app.state.refusal from None

    app = Application(title="feed", version=__version__, description=_ABOUT, lifespan=lifespan)
    app.connections = Connections()
    app.requests = Requests(app.serve, instruments)
    problems.install(app)
    page.install(app)
    openapi.install(app)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins, allow_credentials="*" not in settings.cors_origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"], allow_headers=["Authorization", "Content-Type", "Last-Event-ID"],
    )  # fmt: skip
    return app


def _mount(app: FastAPI, service: Service) -> None:
    settings, hub, streams, gate = service.settings, service.hub, service.streams, service.gate
    app.include_router(stream.routes(hub, service.history, streams, gate, settings))
    app.include_router(jobs.routes(service.store, gate, settings))
    app.include_router(sessions.routes(gate, service.access, Origins(settings.cors_origins), settings))
    app.include_router(health.routes(hub, streams, service.tailer, service.canary, gate, settings))
    app.include_router(metrics.routes(service.metrics, service.sampler, gate))
    app.include_router(subscribers.routes(service.census, gate))
    app.include_router(probe.routes(settings))


def _first(group: BaseExceptionGroup[FeedError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _FromEnvironment:
    """`hypercorn feed.app:app`: reads the settings when the server starts, not when the module is imported."""

    def __init__(self) -> None:
        self._app: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            self._app = create_app(load_settings())
        await self._app(scope, receive, send)


app = _FromEnvironment()
