"""A shutdown that drains first, under plain `hypercorn feed.app:app`.

Hypercorn sets `terminated` before anything else happens, and from then on END_STREAM is lost on HTTP/2 (hypercorn #226):
a drain has to come before. `hypercorn.asyncio.run.raise_shutdown` is looked up after start-up, so the lifespan can put a
wrapper in its place. `feed serve` needs none of this: its shutdown trigger, a public parameter, awaits the drain. Delete
this file when Hypercorn runs a hook before `terminated`.
"""

import asyncio
import inspect
import multiprocessing
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

log = structlog.get_logger(__name__)


@contextmanager
def drained(drain: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """While entered, Hypercorn's shutdown awaits `drain` before it closes anything."""
    run: Any = sys.modules.get("hypercorn.asyncio.run")
    original = getattr(run, "raise_shutdown", None)
    if run is None:
        yield  # another server, or a test
        return
    if not inspect.iscoroutinefunction(original) or len(inspect.signature(original).parameters) != 1:
        log.warning("this Hypercorn shuts down in another way: streams will be cut instead of drained; use feed serve")
        yield
        return
    told = asyncio.Event()

    async def raise_after_drain(trigger: Callable[..., Awaitable[None]]) -> None:
        waits = [asyncio.ensure_future(trigger()), asyncio.ensure_future(told.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        await drain()
        await original(_already)

    run.raise_shutdown = raise_after_drain
    worker = multiprocessing.parent_process() is not None and threading.current_thread() is threading.main_thread()
    if worker:
        # A spawned worker dies at once on a SIGTERM of its own, which systemd sends to the whole group.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    try:
        yield
    finally:
        run.raise_shutdown = original
        if worker:
            # The master terminates all workers as soon as the first has left; one that has drained is leaving already.
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)


async def _already() -> None:
    """Return at once: a shutdown trigger that has gone off already."""
