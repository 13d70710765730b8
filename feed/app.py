"""The application: the service behind its routes, for the life of a process."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from feed import __version__
from feed.errors import FeedError
from feed.http import health, jobs, metrics, openapi, page, probe, problems, sessions, stream, subscribers
from feed.http.origin import Origins
from feed.http.requests import Requests
from feed.hypercorn_adapter.connection import Connections, remember_connection
from feed.hypercorn_adapter.shutdown import drained
from feed.observability.logs import configure
from feed.observability.metrics import Metrics
from feed.service import Service, running
from feed.settings.settings import Settings, load_settings

_COLLECT = 50_000, 20, 20
"""Thresholds of the garbage collector: with Python's own, half of the time in which streams open went into looking at those
that are open (`python -m tests.bench --only accept`)."""

_ABOUT = """Job postings as server-sent events, the second they are committed.

Try it: `curl -N http://127.0.0.1:8000/v1/jobs/stream` in one terminal, and in another

    curl http://127.0.0.1:8000/v1/jobs -H 'content-type: application/json' \\
      -d '{"title": "Site Reliability Engineer", "company": "Acme", "url": "https://acme.example/jobs/42"}'
"""


class Application(FastAPI):
    """FastAPI, with the connection under each request at hand: no middleware of its own lies further out."""

    connections: Connections
    requests: Requests

    async def drain(self) -> None:
        """End every stream; the connections that are left have `drain_requests` to end by themselves."""
        service: Service = self.state.service
        await service.drain.run()
        asyncio.get_running_loop().call_later(service.settings.drain.requests, self.connections.cut)

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

    app = Application(title="feed", version=__version__, description=_ABOUT, lifespan=lifespan)
    app.connections = Connections()
    app.requests = Requests(app.serve, instruments)
    problems.install(app)
    page.install(app)
    openapi.install(app)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.requests.cors_origins, allow_credentials="*" not in settings.requests.cors_origins,
        allow_methods=["GET", "POST", "PUT", "DELETE"], allow_headers=["Authorization", "Content-Type", "Last-Event-ID"],
    )  # fmt: skip
    return app


def _mount(app: FastAPI, service: Service) -> None:
    settings, hub, streams, gate = service.settings, service.hub, service.streams, service.gate
    app.include_router(stream.routes(hub, service.history, streams, gate, settings))
    app.include_router(jobs.routes(service.store, gate, settings))
    app.include_router(sessions.routes(gate, service.access, Origins(settings.requests.cors_origins), settings))
    app.include_router(health.routes(hub, streams, service.tailer, service.canary, gate, settings))
    app.include_router(metrics.routes(service.metrics, service.sampler, gate))
    app.include_router(subscribers.routes(service.census, gate))
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
