"""The gauges of the log: what only the database knows, read for the metrics by the process whose sequencer leads."""

import asyncio
from typing import Any

import asyncpg

from feed.database.connect import translated
from feed.database.sequencer import Sequencer
from feed.observability.metrics import LogGauges, Metrics
from feed.supervision import Backoff, supervised

EVERY = 5.0
"""Seconds between two reads."""

# What waits in the inbox is not before the oldest transaction that the last snapshot saw running; a range of the index,
# so that the rows which are gone cost nothing.
_READ = """
SELECT s.head, s.floor,
       coalesce(extract(epoch FROM clock_timestamp() - (
         SELECT l.at FROM log l WHERE l.position = s.floor + 1)), 0)::float8 AS log_age,
       coalesce(extract(epoch FROM clock_timestamp() - (
         SELECT i.at FROM inbox i WHERE i.xid >= pg_snapshot_xmin(s.snap) ORDER BY i.xid LIMIT 1)), 0)::float8 AS inbox_age,
       pg_notification_queue_usage() AS queue_usage,
       s.head - i.position + CASE WHEN i.filled IS NULL THEN 0 ELSE (SELECT max(j.id) FROM job j) - i.filled END AS backlog
  FROM state s CROSS JOIN search_state i
"""


class LogGaugeReader:
    """Asks while this process leads. Of several processes that have led, the newest answer counts."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", sequencer: Sequencer, metrics: Metrics) -> None:
        self._pool = pool
        self._sequencer = sequencer
        self._metrics = metrics
        self._backoff = Backoff(EVERY)

    async def run(self) -> None:
        """Ask for ever."""
        await supervised("log gauges", self._ask_while_leading, self._backoff)

    async def _ask_while_leading(self) -> None:
        while True:
            if not self._sequencer.leading.is_set():
                self._metrics.forget_log()  # the process that leads now knows better
                await self._sequencer.leading.wait()
            await self.read()
            self._backoff.reset()
            await asyncio.sleep(EVERY)

    async def read(self) -> None:
        """Read the gauges from the database into the metrics; raises DatabaseUnavailable."""
        with translated():
            row: Any = await self._pool.fetchrow(_READ)
        self._metrics.set_log(
            LogGauges(
                row["head"],
                row["floor"],
                max(0.0, row["log_age"]),
                max(0.0, row["inbox_age"]),
                row["queue_usage"],
                row["backlog"] or 0,
            )
        )
