"""Health checks: whether the process is alive, and whether events flow."""

import asyncio
from typing import Protocol

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import Response

from feed.access.grant import Scope
from feed.errors import DatabaseUnavailable
from feed.fanout.canary import Canary
from feed.fanout.hub import Hub
from feed.fanout.streams import Streams
from feed.http.gate import Gate
from feed.http.methods import Route
from feed.model.frame import encode
from feed.settings.settings import Settings


class Following(Protocol):
    """What the health checks need to know of the tailer."""

    connected: bool
    fault: str | None
    seen_at: float | None


class Alive(BaseModel):
    """The answer of a process that is alive."""

    alive: bool = True


class Readiness(BaseModel):
    """`lag` counts events that are known and not yet handed on; `seen_seconds` is the age of the last read of the log.

    `reason` says why it is not ready. `canary_seconds` is what the newest canary took from its row to this process; null
    before the first one, and where there are none. `database` says more to those who may know.
    """

    ready: bool
    reason: str | None
    draining: bool
    database: str
    streams: int
    position: int
    lag: int
    seen_seconds: float | None
    canary_seconds: float | None


def routes(
    hub: Hub, streams: Streams, source: Following, canary: Canary | None, gate: Gate, settings: Settings
) -> APIRouter:
    """Return the routes of the health checks."""
    router = APIRouter(tags=["health"], route_class=Route)

    @router.get("/healthz")
    async def healthz() -> Alive:
        """Answer with 200 while the process is alive."""
        return Alive()

    @router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
    async def readyz(request: Request) -> Response:
        """Answer with 200 while events flow and streams can be opened, otherwise with 503 and the reason."""
        seen = None if source.seen_at is None else asyncio.get_running_loop().time() - source.seen_at
        reason = _reason(seen)
        database = "ok"
        if source.fault is not None:
            # The reason may name hosts and users.
            database = source.fault if await _may(request) else "unavailable"
        state = Readiness(
            ready=reason is None, reason=reason, draining=streams.draining, database=database, streams=len(streams),
            position=hub.head, lag=hub.behind, seen_seconds=None if seen is None else round(seen, 3),
            canary_seconds=None if canary is None or canary.seconds is None else round(canary.seconds, 4),
        )  # fmt: skip
        return Response(encode(state.model_dump()), 200 if reason is None else 503, media_type="application/json")

    async def _may(request: Request) -> bool:
        try:
            return await gate.may(request, Scope.ADMIN)
        except DatabaseUnavailable:  # without the database it is unknown who asks
            return False

    def _reason(seen: float | None) -> str | None:
        """Return why events do not flow or no stream can be opened; None if everything is well."""
        if streams.draining:
            return "draining"
        if not hub.ready or not source.connected or seen is None:
            return "the log is not followed"
        if seen >= settings.tailer.poll + settings.tailer.timeout:
            return "the log was not seen for too long"
        if canary is not None and settings.canary.interval is not None:
            longest = settings.canary.interval + settings.canary.timeout
            if canary.age > longest:
                return f"the newest canary is older than {longest:g} s"
        return None

    return router
