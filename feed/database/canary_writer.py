"""The pulse: writes canaries, rows that take the whole way of an event, in the process whose sequencer leads."""

import asyncio

import asyncpg
import structlog

from feed.database.connect import translated
from feed.database.sequencer import Sequencer
from feed.errors import DatabaseRefused, DatabaseUnavailable

log = structlog.get_logger(__name__)


class Pulse:
    """One canary every `interval` seconds. Each process of the feed times its arrival."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", sequencer: Sequencer, interval: float) -> None:
        self._pool = pool
        self._sequencer = sequencer
        self._interval = interval

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._sequencer.leading.wait()
            try:
                with translated():
                    await self._pool.execute("SELECT canary()")
            except (DatabaseUnavailable, DatabaseRefused) as error:
                log.info("no canary was written", error=str(error))
            except Exception:  # a fault of ours must not end the feed: it is seen, and tried again
                log.exception("canary failed")
            await asyncio.sleep(self._interval)
