"""The composition root: builds everything, wires it by constructor, and owns it for the life of the process."""

import asyncio
import gc
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from feed import __version__
from feed.database.check import check
from feed.database.connect import Backoff, pool
from feed.database.embedded import embedded
from feed.database.jobs import JobStore
from feed.database.keeper import Keeper
from feed.database.log import Log
from feed.database.migrate import migrate
from feed.database.sequencer import Sequencer
from feed.database.tailer import Tailer
from feed.errors import DatabaseRefused, DatabaseUnavailable, FeedError
from feed.fanout.drain import Drain
from feed.fanout.history import History
from feed.fanout.hub import Hub
from feed.fanout.streams import Streams
from feed.http import health, jobs, page, problems, stream
from feed.http.gate import Gate
from feed.logs import configure
from feed.settings import Settings, load_settings
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
        self, settings: Settings, dsn: str, store: JobStore, history: History, hub: Hub, tasks: asyncio.TaskGroup
    ) -> None:
        self.settings = settings
        self.dsn = dsn
        self.store = store
        self.history = history
        self.hub = hub
        self.gate = Gate(settings)
        self.streams = Streams(hub, settings)
        self.drain = Drain(self.streams, settings)
        self.sequencer = Sequencer(settings, dsn)
        self.keeper = Keeper(settings, dsn, self.sequencer)
        self.tailer = Tailer(settings, dsn, hub)
        self._tasks = tasks
        self._running: list[asyncio.Task[None]] = []

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
            if self.settings.sequencer:
                tasks.create_task(self.sequencer.run(), name="sequencer")
                tasks.create_task(self.keeper.run(), name="keeper")


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """Build and run the service. Starts without its database too, if that may yet come; raises if it never can."""
    async with AsyncExitStack() as stack:
        dsn = settings.database_url
        if dsn is None:
            dsn = await stack.enter_async_context(embedded(settings.data_dir))
        connections = await stack.enter_async_context(pool(settings, dsn))
        hub = Hub(settings)
        history = await stack.enter_async_context(
            History(Log(connections), settings.history_page, settings.history_cache, settings.history_reads)
        )
        async with asyncio.TaskGroup() as tasks:
            service = Service(settings, dsn, JobStore(connections), history, hub, tasks)
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

    async def drain(self) -> None:
        """End every stream; the connections that are left have `drain_requests` to end by themselves."""
        service: Service = self.state.service
        await service.drain.run()
        asyncio.get_running_loop().call_later(service.settings.drain_requests, self.connections.cut)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "http":
            self.connections.add(remember_connection(scope, send).server)
        await super().__call__(scope, receive, send)


def create_app(settings: Settings, *, drains: bool = False) -> Application:
    """The application. `drains`: whoever serves it awaits `app.drain()` before it stops serving."""
    configure(settings.log_level)

    @asynccontextmanager
    async def lifespan(app: Application) -> AsyncIterator[None]:
        try:
            async with running(settings) as service:
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
    problems.install(app)
    page.install(app)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins, allow_methods=["GET"], allow_headers=["Last-Event-ID"],
    )  # fmt: skip
    return app


def _mount(app: FastAPI, service: Service) -> None:
    settings, hub, streams = service.settings, service.hub, service.streams
    app.include_router(stream.routes(hub, service.history, streams, settings))
    app.include_router(jobs.routes(service.store, settings))
    app.include_router(health.routes(hub, streams, service.tailer, settings))


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
