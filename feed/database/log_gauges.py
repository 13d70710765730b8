"""The survey: what only the database knows of the log, asked for the metrics by the process whose sequencer leads."""

import asyncio
from typing import Any

import asyncpg
import structlog

from feed.database.connect import translated
from feed.database.sequencer import Sequencer
from feed.errors import DatabaseRefused, DatabaseUnavailable
from feed.observability.metrics import LogGauges, Metrics

log = structlog.get_logger(__name__)

EVERY = 5.0
"""Seconds between two surveys."""

# What waits in the inbox is not before the oldest transaction that the last snapshot saw running; a range of the index,
# so that the rows which are gone cost nothing.
_SURVEY = """
SELECT s.head, s.floor,
       coalesce(extract(epoch FROM clock_timestamp() - (
         SELECT l.at FROM log l WHERE l.position = s.floor + 1)), 0)::float8 AS log_age,
       coalesce(extract(epoch FROM clock_timestamp() - (
         SELECT i.at FROM inbox i WHERE i.xid >= pg_snapshot_xmin(s.snap) ORDER BY i.xid LIMIT 1)), 0)::float8 AS inbox_age,
       pg_notification_queue_usage() AS queue_usage
  FROM state s
"""


class Survey:
    """Asks while this process leads; what several processes last said, the newest of it is told."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", sequencer: Sequencer, metrics: Metrics) -> None:
        self._pool = pool
        self._sequencer = sequencer
        self._metrics = metrics

    async def run(self) -> None:
        """For ever."""
        asked = False
        while True:
            if asked and not self._sequencer.leading.is_set():
                self._metrics.forget_survey()  # who leads now knows better
            await self._sequencer.leading.wait()
            asked = True
            try:
                await self.ask()
            except (DatabaseUnavailable, DatabaseRefused):
                pass  # the tailer says what is wrong
            except Exception:  # a fault of ours must not end the feed: it is seen, and tried again
                log.exception("survey failed")
            await asyncio.sleep(EVERY)

    async def ask(self) -> None:
        """Once."""
        with translated():
            row: Any = await self._pool.fetchrow(_SURVEY)
        self._metrics.survey(
            LogGauges(
                row["head"], row["floor"], max(0.0, row["log_age"]), max(0.0, row["inbox_age"]), row["queue_usage"]
            )
        )
