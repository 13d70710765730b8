"""Retention: expired postings are closed, old events leave the log, partitions are made ahead, and tickets and revocations
that matter no more are deleted."""

import asyncio
from typing import Any

import asyncpg
import structlog

from feed.database.access import forget_expired
from feed.database.connect import owned, translated
from feed.database.sequencer import Sequencer
from feed.errors import DatabaseUnavailable
from feed.settings.settings import Settings
from feed.supervision import Backoff, supervised

log = structlog.get_logger(__name__)

_EXPIRE = """
UPDATE job SET closed_at = clock_timestamp() WHERE id IN (
  SELECT j.id FROM job j WHERE j.closed_at IS NULL AND j.valid_through < clock_timestamp()
     AND j.source <> ALL (ARRAY(SELECT a.source FROM attachment a))
   ORDER BY j.valid_through LIMIT 1000 FOR UPDATE SKIP LOCKED)
"""

# Partitions that hold nothing above the floor; one whose detaching was interrupted has to be finished first.
_PRUNED = """
SELECT c.oid::regclass::text AS name, i.inhdetachpending AS pending FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = 'log'::regclass
   AND (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \\(''?(\\d+)'))[1]::bigint - 1 <= (SELECT floor FROM state)
 ORDER BY 2 DESC, 1
"""

# The epochs whose every position lies below the floor: an id of theirs is pruned anyway. Start positions ascend with the
# epochs, so what goes is the beginning of the chain and the ends of those that stay do not change. Of a server that
# restarts for ever without an event, the newest epochs stay.
_FORGET_EPOCHS = """
DELETE FROM epoch WHERE epoch <= (
  SELECT max(c.epoch) FROM (
    SELECT e.epoch, lead(e.start_position) OVER (ORDER BY e.epoch) AS until,
           row_number() OVER (ORDER BY e.epoch DESC) AS age FROM epoch e) c
   WHERE c.until < (SELECT floor FROM state) OR c.age > $1)
"""
EPOCHS = 10_000
"""The number of epochs kept at most; every start of the database's server begins one."""

# Partitions that were detached by a round that did not live to drop them.
_LEFT = """
SELECT c.oid::regclass::text AS name FROM pg_class c
 WHERE c.relnamespace = (SELECT l.relnamespace FROM pg_class l WHERE l.oid = 'log'::regclass) AND c.relkind = 'r'
   AND c.relname ~ '^log_[0-9]+$' AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
"""


class Retention:
    """Keeps the log within its bounds, in the process whose sequencer leads, on a connection of its own."""

    def __init__(self, settings: Settings, dsn: str, sequencer: Sequencer) -> None:
        self._settings = settings
        self._dsn = dsn
        self._sequencer = sequencer
        self._backoff = Backoff(settings.database.reconnect_max)
        self.reconnects = -1  # connections after the first

    async def run(self) -> None:
        """Work for ever, whenever this process leads."""
        await supervised("retention", self._work_while_leading, self._backoff)

    async def _work_while_leading(self) -> None:
        while True:
            await self._sequencer.leading.wait()
            async with owned(self._settings.database, self._dsn, "retention", idle_session_timeout="0") as connection:
                self.reconnects += 1
                with translated():
                    try:
                        await self._keep(connection)
                    except asyncpg.LockNotAvailableError:
                        raise DatabaseUnavailable("retention waits for a long reader of the log") from None

    async def _keep(self, connection: Any) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while self._sequencer.leading.is_set():
            try:
                await expire(connection)
            except asyncpg.CheckViolationError:  # no partition of the log holds the next position
                due = loop.time()
            if loop.time() >= due:
                # Before pruning, which a long reader may hold up.
                await connection.execute(
                    "SELECT extend_log($1, $2)", self._settings.log.partition, self._settings.log.partitions_ahead
                )
                await forget_expired(connection)
                await forget_epochs(connection)
                await prune(connection, self._settings)
                due = loop.time() + self._settings.log.housekeeping
            self._backoff.reset()
            await asyncio.sleep(min(self._settings.log.expiry_interval, self._settings.log.housekeeping))


async def expire(connection: Any) -> int:
    """Close the postings that are past `valid_through`, a thousand in a transaction; returns how many.

    Those of attached tables are closed by expire_mirrored() (0010_attach.sql), which raises asyncpg.CheckViolationError
    where no partition of the log holds the next position.
    """
    expired = 0
    while True:
        async with connection.transaction():
            await connection.execute("SELECT set_config('feed.reason', 'expired', true)")
            closed = int((await connection.execute(_EXPIRE)).split()[-1])
        expired += closed
        if closed < 1000:
            break
    while closed := await connection.fetchval("SELECT expire_mirrored(1000)"):
        expired += closed
    return expired


async def forget_epochs(connection: Any, most: int = EPOCHS) -> int:
    """Delete the epochs that no good id can name any more, and the oldest beyond `most`; return how many."""
    return int((await connection.execute(_FORGET_EPOCHS, most)).split()[-1])


async def prune(connection: Any, settings: Settings) -> int:
    """Raise the floor to what retention allows, then drop the partitions below it; returns how many went.

    In this order: a reader that meets a missing partition must already be able to see the floor that explains it.
    """
    await connection.execute(
        "UPDATE state SET floor = f.floor FROM (SELECT greatest("
        "  position_before(clock_timestamp() - make_interval(secs => $1)), s.head - $2::bigint) AS floor FROM state s) f "
        "WHERE f.floor > state.floor",
        settings.log.retention, settings.log.retention_events,
    )  # fmt: skip
    dropped = 0
    # DETACH waits for readers; while it does, nobody else is held up for long.
    await connection.execute("SET lock_timeout = '10s'")
    for row in await connection.fetch(_LEFT):
        await connection.execute(f"DROP TABLE {row['name']}")
    for row in await connection.fetch(_PRUNED):
        how = "FINALIZE" if row["pending"] else "CONCURRENTLY"
        await connection.execute(f"ALTER TABLE log DETACH PARTITION {row['name']} {how}")
        await connection.execute(f"DROP TABLE {row['name']}")
        log.info("pruned a partition of the log", partition=row["name"])
        dropped += 1
    return dropped
