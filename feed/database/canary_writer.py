"""The writer of canaries: rows that take the whole way of an event, so that this can be timed."""

import asyncio

import asyncpg

from feed.database.connect import translated
from feed.database.sequencer import Sequencer
from feed.supervision import Backoff, supervised


class CanaryWriter:
    """Writes a canary every `interval` seconds while this process leads. Each process of the feed times its arrival."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", sequencer: Sequencer, interval: float) -> None:
        self._pool = pool
        self._sequencer = sequencer
        self._interval = interval
        self._backoff = Backoff(interval)

    async def run(self) -> None:
        """Write for ever."""
        await supervised("canary writer", self._write, self._backoff)

    async def _write(self) -> None:
        while True:
            await self._sequencer.leading.wait()
            with translated():
                await self._pool.execute("SELECT canary()")
            self._backoff.reset()
            await asyncio.sleep(self._interval)
