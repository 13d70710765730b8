"""Health: is the process alive, and is the feed flowing."""

import asyncio
from typing import Protocol

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from feed.fanout.hub import Hub
from feed.fanout.streams import Streams
from feed.frame import encode
from feed.settings import Settings


class Following(Protocol):
    """What health asks of the source that feeds the hub."""

    connected: bool
    fault: str | None
    seen_at: float | None


class Alive(BaseModel):
    """The process answers."""

    alive: bool = True


class Readiness(BaseModel):
    """`lag` counts events known and not yet handed on; `seen_seconds` is the age of the last good look at the log."""

    ready: bool
    draining: bool
    database: str
    streams: int
    position: int
    lag: int
    seen_seconds: float | None


def routes(hub: Hub, streams: Streams, source: Following, settings: Settings) -> APIRouter:
    """The routes over one hub and its source."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> Alive:
        """200 while the process answers."""
        return Alive()

    @router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness}})
    async def readyz() -> Response:
        """200 while events flow and new streams are welcome; 503 says why not."""
        seen = None if source.seen_at is None else asyncio.get_running_loop().time() - source.seen_at
        fresh = seen is not None and seen < settings.tail_poll + settings.tail_timeout
        ready = hub.ready and source.connected and fresh and not streams.draining
        state = Readiness(
            ready=ready, draining=streams.draining, database=source.fault or "ok", streams=len(streams),
            position=hub.head, lag=hub.behind, seen_seconds=None if seen is None else round(seen, 3),
        )  # fmt: skip
        return Response(encode(state.model_dump()), 200 if ready else 503, media_type="application/json")

    return router
