"""The drain: every open stream is told goodbye, spread over a window of time, and what is left at the deadline is cut."""

import asyncio

import structlog

from feed.fanout.ending import Ended, Goodbye
from feed.fanout.streams import Streams
from feed.settings.fanout import DrainSettings

log = structlog.get_logger(__name__)


class Drain:
    """Ends all streams of a process. `run()` may be called several times: all calls wait for the same drain."""

    def __init__(self, streams: Streams, settings: DrainSettings) -> None:
        self._streams = streams
        self._settings = settings
        self._running: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """End every stream, and refuse new ones. Returns when the last stream is gone or was cut."""
        self._streams.draining = True
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="drain")
        await asyncio.shield(self._running)

    async def _run(self) -> None:
        settings = self._settings
        streams = list(self._streams)
        log.info("drain began", streams=len(streams))
        window = min(settings.window, len(streams) / settings.rate)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for number, stream in enumerate(streams):
            due = begin + window * number / len(streams)
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            stream.end(Goodbye.DRAIN)
        try:
            async with asyncio.timeout(max(0.0, begin + settings.deadline - loop.time())):
                await self._streams.empty.wait()
        except TimeoutError:
            log.warning("drain cut connections", streams=len(self._streams))
            for stream in self._streams:
                stream.cut(Ended.DEADLINE)
        log.info("drain ended", seconds=round(loop.time() - begin, 3))
