"""The drain: every open stream is told goodbye, spread over a window, with a deadline behind it all."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from feed.fanout.hub import Hub
from feed.fanout.stream import Farewell, Stream
from feed.settings import Settings

log = structlog.get_logger(__name__)


class Drain:
    """Knows every open stream. `run()` may be called from several places; it happens once."""

    def __init__(self, hub: Hub, settings: Settings) -> None:
        self._hub = hub
        self._settings = settings
        self._streams: set[Stream] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._running: asyncio.Task[None] | None = None
        self.draining = False

    def __len__(self) -> int:
        return len(self._streams)

    @contextmanager
    def holding(self, stream: Stream) -> Iterator[None]:
        """Count `stream` as open; one that cannot be had now is told so at once."""
        if self.draining:
            stream.end(Farewell.DRAIN)
        elif len(self._streams) >= self._settings.max_streams:
            stream.end(Farewell.FULL)
        elif not self._hub.ready:
            stream.end(Farewell.UNAVAILABLE)
        self._streams.add(stream)
        self._empty.clear()
        try:
            yield
        finally:
            self._streams.discard(stream)
            if not self._streams:
                self._empty.set()

    async def watch(self) -> None:
        """Cut off, for ever, the clients that have taken nothing for `send_timeout`: one timer for all of them."""
        patience = self._settings.send_timeout
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(1.0, patience / 4))
            stalled = loop.time() - patience
            for stream in list(self._streams):
                if stream.sending_since is not None and stream.sending_since < stalled:
                    stream.cut()

    async def run(self) -> None:
        """End every stream; returns when the last one is gone or was cut."""
        self.draining = True
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="drain")
        await asyncio.shield(self._running)

    async def _run(self) -> None:
        settings = self._settings
        streams = list(self._streams)
        log.info("drain began", streams=len(streams))
        window = min(settings.drain_window, len(streams) / settings.drain_rate)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for number, stream in enumerate(streams):
            due = begin + window * number / len(streams)
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            stream.end(Farewell.DRAIN)
        try:
            async with asyncio.timeout(max(0.0, begin + settings.drain_deadline - loop.time())):
                await self._empty.wait()
        except TimeoutError:
            log.warning("drain cut connections", streams=len(self._streams))
            for stream in list(self._streams):
                stream.cut()
        log.info("drain ended", seconds=round(loop.time() - begin, 3))
