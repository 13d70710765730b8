"""The application, and the one place where all parts of the service are built and joined, for the life of a process."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass

import asyncpg
import structlog
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Receive, Scope, Send

from feed import __version__
from feed.access.keys import Keys
from feed.access.revocations import Revocations
from feed.access.secret import Secret
from feed.access.tickets import Tickets
from feed.access.tokens import Tokens
from feed.database.access import AccessStore
from feed.database.canary_writer import CanaryWriter
from feed.database.connect import pool
from feed.database.embedded import embedded
from feed.database.indexer import Indexer
from feed.database.jobs import JobStore
from feed.database.log import Log
from feed.database.log_gauges import LogGaugeReader
from feed.database.mirror_keeper import MirrorKeeper
from feed.database.presence import Presence, this_process
from feed.database.retention import Retention
from feed.database.sequencer import Sequencer
from feed.database.source_gauges import SourceGaugeReader
from feed.database.source_runs import SourceRuns
from feed.database.sources import SourceStore
from feed.database.tailer import Tailer
from feed.errors import DatabaseUnavailable, FeedError
from feed.fanout.canary import Canary
from feed.fanout.drain import Drain
from feed.fanout.heartbeat import Heartbeat
from feed.fanout.history import History
from feed.fanout.hub import Hub
from feed.fanout.replay_blocks import ReplayBlocks
from feed.fanout.sources import StreamSources
from feed.fanout.stream_report import StreamReporter
from feed.fanout.streams import Streams
from feed.http import docs, health, jobs, openapi, page, probe, problems, sessions, sources, stream, subscribers
from feed.http import metrics as metrics_route
from feed.http.cors import Cors
from feed.http.gate import Gate
from feed.http.origin import Origins
from feed.http.requests import Requests
from feed.http.stream import StreamEndpoint
from feed.hypercorn_adapter.connection import Connections, remember_connection
from feed.hypercorn_adapter.shutdown import drained
from feed.ingest.ingest import Ingest
from feed.limits.rates import Rates
from feed.observability.logs import configure
from feed.observability.metrics import Metrics
from feed.observability.sampler import Reconnecting, Sampled, Sampler
from feed.observability.traces import Traces, traces_of
from feed.service import Service
from feed.settings.settings import Settings, load_settings
from feed.wire.native.fanout_writer import choose_writer

log = structlog.get_logger(__name__)

_COLLECT = 50_000, 20, 20
"""Thresholds of the garbage collector: with Python's own, half of the time in which streams open went into looking at those
that are open (`python -m tests.bench --only accept`)."""

_COMPRESSED, _COMPRESSION = 1024, 4
"""Bytes from which on an answer is worth compressing, and zlib's level: 9 takes twice the time for 3 % less."""

_ABOUT = """Job postings as server-sent events, the second they are committed.

Try it: `curl -N http://127.0.0.1:8000/v1/jobs/stream` in one terminal, and in another

    curl http://127.0.0.1:8000/v1/jobs -H 'content-type: application/json' \\
      -d '{"title": "Site Reliability Engineer", "company": "Acme", "url": "https://acme.example/jobs/42"}'
"""


class Application(FastAPI):
    """FastAPI, with the connection under each request at hand: no middleware of its own lies further out."""

    connections: Connections
    requests: Requests
    cors: Cors
    stream: StreamEndpoint

    async def drain(self) -> None:
        """End every stream; the connections that are left have `drain_requests` to end by themselves."""
        service: Service = self.state.service
        await service.drain.run()
        asyncio.get_running_loop().call_later(service.settings.drain.requests, self.connections.cut)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "http":
            connection = remember_connection(scope, send)
            if connection.wire is None:  # else it is counted already
                self.connections.add(connection.server)
            if scope["path"] == stream.PATH and scope["method"] in ("GET", "HEAD"):
                scope["app"] = self
                await self.stream(scope, receive, send)
            else:
                await self.requests(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, inside of what goes around it."""
        await super().__call__(scope, receive, send)


def create_app(settings: Settings, *, drains: bool = False) -> Application:
    """The application. `drains`: whoever serves it awaits `app.drain()` before it stops serving."""
    configure(settings.logging.level, settings.logging.format)
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

    app = Application(
        title="feed", version=__version__, description=_ABOUT, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.connections = Connections()
    compressed = GZipMiddleware(app.serve, minimum_size=_COMPRESSED, compresslevel=_COMPRESSION)
    app.cors = Cors(compressed, settings.requests.cors_origins)
    app.requests = Requests(app.cors, instruments)
    problems.install(app)
    page.install(app)
    docs.install(app)
    openapi.install(app)
    return app


@asynccontextmanager
async def running(settings: Settings, metrics: Metrics, clients: Connections) -> AsyncIterator[Service]:
    """Build the service and run it. It starts without its database too, if that may yet come; raises if it never can."""
    async with AsyncExitStack() as stack:
        if settings.database.url is None:
            settings = settings.changed(
                database_url=await stack.enter_async_context(embedded(settings.database.data_dir))
            )
        traces = traces_of(__version__)
        stack.push_async_callback(asyncio.to_thread, traces.close)
        pools = Pools(
            await stack.enter_async_context(pool(settings.database, settings.database.url or "")),
            # Revocations and keys have a pool of their own: slow lists, which may take all others, must not hold them up.
            await stack.enter_async_context(
                pool(
                    settings.database.model_copy(update={"pool_size": settings.database.access_pool_size}),
                    settings.database.url or "",
                )
            ),
        )
        history = await stack.enter_async_context(History(Log(pools.data), settings.replay))
        async with asyncio.TaskGroup() as tasks:
            service = build(settings, metrics, clients, traces, pools, history, tasks)
            await _begin(service)
            yield service
            service.stop()
        await service.presence.leave()


@dataclass(frozen=True, slots=True)
class Pools:
    """Connections to the database: for postings and replays, and for access, presence and metrics."""

    data: "asyncpg.Pool[asyncpg.Record]"
    access: "asyncpg.Pool[asyncpg.Record]"


def build(
    settings: Settings, metrics: Metrics, clients: Connections, traces: Traces, pools: Pools, history: History,
    tasks: asyncio.TaskGroup,
) -> Service:  # fmt: skip
    """Every part of the service, from the parts that it needs."""
    dsn = settings.database.url or ""
    canary = None if settings.canary.interval is None else Canary(metrics.canary_seconds.observe)
    writer = choose_writer(settings.wire.fanout_writer)
    hub = Hub(settings.hub, canary, traces, writer.writer)
    stream_sources = StreamSources(
        hub, history, ReplayBlocks(settings.replay.joined_bytes), settings.database.connect_timeout
    )
    streams = Streams(hub, settings.streams)

    access = AccessStore(pools.access)
    keys = Keys(access, settings.access.key_cache)
    revocations = Revocations(access, settings.access.poll, settings.jwt.leeway)
    revocations.tell(keys.hear)
    revocations.tell(lambda one: streams.end_revoked(one, revocations.concerns))
    gate = Gate(
        settings, keys, Tokens(settings.jwt), Tickets(access, settings.access), revocations, Secret(access),
        Rates(settings.limits), metrics, access.revoke,
    )  # fmt: skip
    # A process that serves alone has no number among workers.
    here = this_process(hub.process, structlog.contextvars.get_contextvars().get("worker"))
    presence = Presence(pools.access, StreamReporter(hub, streams), here, access.revoke)

    tailer = Tailer(settings, dsn, hub, metrics)
    sequencer = Sequencer(settings, dsn, metrics)
    retention = Retention(settings, dsn, sequencer)
    indexer = Indexer(settings, dsn, sequencer, lambda: hub.head)
    store = JobStore(pools.data, traces)
    mirror_keeper = MirrorKeeper(settings, dsn, sequencer)
    reconnecting: dict[str, Reconnecting] = {
        "tailer": tailer, "sequencer": sequencer, "retention": retention, "indexer": indexer,
    }  # fmt: skip
    source_store = SourceStore(pools.access)
    sampled = Sampled(hub, streams, history, canary, clients, sequencer.leading, reconnecting, writer)
    return Service(
        settings=settings,
        dsn=dsn,
        hub=hub,
        heartbeat=Heartbeat(hub),
        sources=stream_sources,
        streams=streams,
        drain=Drain(streams, settings.drain),
        store=store,
        access=access,
        keys=keys,
        revocations=revocations,
        gate=gate,
        presence=presence,
        metrics=metrics,
        sampler=Sampler(metrics, sampled),
        canary=canary,
        tailer=tailer,
        sequencer=sequencer,
        retention=retention,
        indexer=indexer,
        ingest=Ingest(settings, store, SourceRuns(pools.data), sequencer),
        mirror_keeper=mirror_keeper,
        log_gauges=LogGaugeReader(pools.access, sequencer, metrics),
        source_store=source_store,
        source_gauges=SourceGaugeReader(source_store, sequencer, metrics),
        canary_writer=(
            None
            if settings.canary.interval is None
            else CanaryWriter(pools.access, sequencer, settings.canary.interval)
        ),
        _tasks=tasks,
    )


async def _begin(service: Service) -> None:
    """Prepare the database and start the background; without a database, go on trying in the background.

    Raises DatabaseRefused where the database answers and cannot carry a feed.
    """
    try:
        await service.prepare()
    except DatabaseUnavailable as error:
        service.tailer.failed(str(error))
        log.warning("starting without the database", error=str(error))
        service.start("preparation", service.prepare_and_start)
        return
    service.start_all()
    # Give the tailer a moment to meet the head of the log, so that the first client is not told to come back.
    try:
        async with asyncio.timeout(service.settings.database.connect_timeout):
            while not service.hub.ready:
                await asyncio.sleep(0.005)
    except TimeoutError:
        log.warning("the log is not followed yet", reason=service.tailer.fault)


def _mount(app: Application, service: Service) -> None:
    settings, hub, streams, gate = service.settings, service.hub, service.streams, service.gate
    app.stream = StreamEndpoint(service.sources, streams, gate, settings, app.requests, app.cors)
    app.router.routes.append(app.stream.route)
    app.include_router(jobs.routes(service.store, gate, settings))
    app.include_router(sessions.routes(gate, service.access, Origins(settings.requests.cors_origins), settings))
    app.include_router(health.routes(hub, streams, service.tailer, service.canary, gate, settings))
    app.include_router(metrics_route.routes(service.metrics, service.sampler, gate))
    app.include_router(subscribers.routes(service.presence, gate))
    app.include_router(sources.routes(service.source_store, gate))
    app.include_router(probe.routes(settings.proxies))


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
