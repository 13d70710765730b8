"""The server of one process: Hypercorn until it is told to stop, and the drain before Hypercorn learns of it."""

import asyncio
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import cast

import uvloop
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.typing import Framework

from feed.app import create_app
from feed.errors import FeedError
from feed.hypercorn_adapter.install import installed
from feed.service import Service
from feed.serving.hypercorn_config import hypercorn_config
from feed.serving.signals import STOP_SIGNALS
from feed.serving.sockets import allow_files, listen, url_of, user_timeout_of
from feed.settings.settings import Settings


def serve_alone(settings: Settings, started: Callable[[str, Service], None]) -> None:
    """Serve until SIGTERM or SIGINT, drain, and return. `started` is told the address once requests are answered."""

    async def until_signalled() -> None:
        stop = asyncio.Event()
        for number in STOP_SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve_until(stop, settings, started)

    allow_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(until_signalled())


async def serve_until(
    stop: asyncio.Event,
    settings: Settings,
    started: Callable[[str, Service], None],
    listener: socket.socket | None = None,
) -> None:
    """Serve in the running loop until `stop` is set, drain, and return; raises FeedError where it cannot start.

    `listener`, where there is one already, is closed at the end.
    """
    app = create_app(settings, drains=True)

    async def shutdown_trigger() -> None:
        started(address, app.state.service)
        await stop.wait()
        # Before Hypercorn learns of the end: once it has, the goodbye of an HTTP/2 stream is lost (hypercorn #226).
        await app.drain()

    with listener or listen(settings.listen, user_timeout_of(settings)) as sock:
        address = url_of(settings.listen, sock)
        config = hypercorn_config(settings, sock, app.connections)
        sock.detach()  # Hypercorn owns it from here on
        try:
            with installed() if settings.wire.enabled else nullcontext(False) as by_wire:
                if by_wire:  # else its GOAWAY is the only defence against rapid resets
                    config.keep_alive_max_requests = sys.maxsize
                await hypercorn_serve(cast("Framework", app), config, shutdown_trigger=shutdown_trigger)
        except BaseException:
            refusal = getattr(app.state, "refusal", None)
            if isinstance(refusal, FeedError):
                raise refusal from None
            raise
