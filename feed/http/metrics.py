"""The route of the metrics."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from feed.access.grant import Scope
from feed.http.gate import Gate
from feed.http.methods import Route
from feed.http.problems import documented
from feed.observability.metrics import Metrics
from feed.observability.sampler import Sampler


def routes(metrics: Metrics, sampler: Sampler, gate: Gate) -> APIRouter:
    """Return the route of the metrics, which the workers of one service share."""
    router = APIRouter(tags=["operators"], route_class=Route)

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented(401, 403, 429, 503)},
    )
    async def read_metrics(request: Request) -> Response:
        """Read the metrics of all workers in Prometheus's text format. Needs the scope `metrics`, unless open."""
        await gate.admit(request, Scope.METRICS)
        await sampler.sample()
        body, media_type = await asyncio.to_thread(metrics.render)
        return Response(body, headers={"Content-Type": media_type, "Cache-Control": "no-store"})

    return router
