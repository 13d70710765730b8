"""The probe: three small frames at known times, which show a client whether a proxy on the way buffers streams."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from feed import __version__
from feed.errors import TooMany
from feed.http.address import origin_of
from feed.http.methods import Route, is_head
from feed.http.problems import documented
from feed.model.frame import encode
from feed.settings.limits import ProxySettings

_FRAMES = 3
_GAP = 0.3
"""Seconds between two frames."""
_AT_ONCE = 100
"""Probes that a process answers at the same time; further ones get 429."""

_DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Three frames, 300 ms apart; `after_ms` is when each was sent, counted from the first; `client` is "
        "the address that the service sees.",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": "event: probe\n"
                'data: {"number":1,"of":3,"after_ms":0.0,"version":"1.0.0","client":"192.0.2.7"}\n\n',
            }
        },
    },
    **documented(429),
}


class Probe:
    """Counts the probes that are open."""

    def __init__(self) -> None:
        self._open = 0

    async def frames(self, client: str) -> AsyncIterator[bytes]:
        """Yield the body of one probe for a client at that address."""
        self._open += 1
        try:
            clock = asyncio.get_running_loop().time
            began = clock()
            for number in range(1, _FRAMES + 1):
                if number > 1:
                    await asyncio.sleep(_GAP)
                after = round((clock() - began) * 1000, 1)
                said = {"number": number, "of": _FRAMES, "after_ms": after, "version": __version__, "client": client}
                yield b"event: probe\ndata: %b\n\n" % encode(said)
        finally:
            self._open -= 1

    def check(self) -> None:
        """Raise TooMany while too many probes are open."""
        if self._open >= _AT_ONCE:
            raise TooMany("too many probes at the same time: try again in 1 s", 1)


def routes(settings: ProxySettings) -> APIRouter:
    """Return the route of the probe."""
    router = APIRouter(tags=["health"], route_class=Route)
    probe = Probe()

    @router.get("/v1/probe", response_class=StreamingResponse, responses=_DOCUMENTED)
    async def send_probe(request: Request) -> Response:
        """Send three timed frames: if they arrive together, a proxy on the way buffers streams (see `feed doctor`)."""
        probe.check()
        # The same headers as a stream, so that proxies treat the probe like one.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        if is_head(request.scope):
            return Response(headers=headers, media_type="text/event-stream")
        client = origin_of(request.scope, settings.trusted, settings.forwarded_header).address
        return StreamingResponse(probe.frames(client), media_type="text/event-stream", headers=headers)

    return router
