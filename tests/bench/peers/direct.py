"""The feed's hub and wire without its database: what is posted to `/publish` goes straight to the hub.

`python -m tests.bench.peers.direct PORT`: the last step by itself, told of events as the peers are.
"""

import asyncio
import sys
from typing import Any, cast

import orjson
import uvloop
from fastapi import FastAPI
from hypercorn.asyncio import serve
from starlette.requests import Request
from starlette.responses import Response

from feed.access.caller import Caller
from feed.access.grant import OPEN
from feed.fanout.history import History
from feed.fanout.hub import Hub
from feed.fanout.replay_blocks import ReplayBlocks
from feed.fanout.sources import StreamSources
from feed.fanout.streams import Streams
from feed.http.cors import Cors
from feed.http.gate import Visitor
from feed.http.requests import Requests
from feed.http.stream import StreamEndpoint
from feed.hypercorn_adapter.connection import Connections, remember_connection
from feed.hypercorn_adapter.install import installed
from feed.model.event import Event, Kind
from feed.model.posting import FIELDS
from feed.observability.metrics import Metrics
from feed.serving.hypercorn_config import hypercorn_config
from feed.serving.sockets import listen, user_timeout_of
from feed.settings.settings import load_settings


class Application(FastAPI):
    """As the feed's own: the connection is remembered before anything else happens."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            remember_connection(scope, send)
        await super().__call__(scope, receive, send)


class OpenGate:
    """A gate that lets everybody in."""

    def stranger(self, _: Any) -> Caller:
        """Return the caller before anything is known of it."""
        return Caller(OPEN)

    async def admit_stream(self, *_: Any) -> Visitor:
        """Return the visitor, whoever it is."""
        return Visitor(Caller(OPEN))

    def too_often(self, _: Caller) -> bool:
        """Return that nobody opens streams too often."""
        return False

    async def redeem(self, *_: Any) -> None:
        """Redeem nothing: visitors have no tickets here."""


async def main(port: int) -> None:
    """Serve until killed."""
    settings = load_settings(port=port, log_level="error")
    hub = Hub(settings.hub)
    hub.restart_at(1, 0)
    hub.ready = True
    app = Application()

    async def publish(request: Request) -> Response:
        found = orjson.loads(orjson.loads(await request.body())["data"])
        job = {name: found[name] for name in FIELDS if name in found}
        hub.publish([Event(hub.head + 1, Kind.POSTED, job)])
        return Response(status_code=204)

    app.add_route("/publish", publish, methods=["POST"])
    history = History(cast(Any, None), settings.replay)
    sources = StreamSources(hub, history, ReplayBlocks(settings.replay.joined_bytes), 1.0)
    requests = Requests(app, Metrics(""))
    endpoint = StreamEndpoint(
        sources, Streams(hub, settings.streams), cast(Any, OpenGate()), settings, requests, Cors(app, ())
    )
    app.router.routes.append(endpoint.route)
    with listen(settings.listen, user_timeout_of(settings)) as sock, installed():
        config = hypercorn_config(settings, sock, Connections())
        config.keep_alive_max_requests = sys.maxsize
        sock.detach()
        await serve(cast(Any, app), config, shutdown_trigger=asyncio.Event().wait)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
