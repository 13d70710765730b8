"""The metrics of the sources, read from the database by the process whose sequencer leads."""

import asyncio
from datetime import UTC, datetime

from feed.database.sequencer import Sequencer
from feed.database.sources import SourceStore
from feed.observability.metrics import Metrics
from feed.supervision import Backoff, supervised

EVERY = 5.0
"""Seconds between two reads. Two runs of one source are minutes apart, so none is overlooked."""


class SourceGaugeReader:
    """Reads while this process leads, and withdraws what it said when it does so no more."""

    def __init__(self, store: SourceStore, sequencer: Sequencer, metrics: Metrics) -> None:
        self._store = store
        self._sequencer = sequencer
        self._metrics = metrics.sources
        self._backoff = Backoff(EVERY)

    async def run(self) -> None:
        """Read for ever."""
        await supervised("source gauges", self._read_while_leading, self._backoff)

    async def _read_while_leading(self) -> None:
        while True:
            if not self._sequencer.leading.is_set():
                self._metrics.forget()
                await self._sequencer.leading.wait()
            await self.read()
            self._backoff.reset()
            await asyncio.sleep(EVERY)

    async def read(self) -> None:
        """Read the sources from the database into the metrics; raises DatabaseUnavailable."""
        self._metrics.update(await self._store.list(), datetime.now(UTC))
