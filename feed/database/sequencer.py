"""The sequencer: calls advance() (0003_log.sql), which moves committed changes from the inbox to the log.

Every process may run one; one at a time leads. While there is work, sequence() (0008_sequence.sql) calls advance() every few
milliseconds on the server, so that an event costs this process a part of a call.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

import asyncpg
import structlog

from feed.database.connect import owned, translated
from feed.observability.metrics import Metrics
from feed.settings.settings import Settings
from feed.supervision import Backoff, supervised

log = structlog.get_logger(__name__)


_MOVE = """
SELECT head, moved, more, xmax::text::bigint AS xmax, extract(epoch FROM clock_timestamp() - oldest)::float8 AS age
  FROM advance($1)
"""
# Whether there may be writers that do not ring: those that came before, and those of attached tables where transactions may
# be prepared (AttachmentDdl.capture_body).
_UNAWARE = """
SELECT pg_snapshot_xmin(pg_current_snapshot()) < $1::text::xid8
       OR current_setting('max_prepared_transactions') <> '0' AND EXISTS (SELECT FROM attachment)
"""
_SEQUENCE = "CALL sequence($1, $2, $3, $4, $5, $6, $7, NULL)"
_CALL = 0.1
"""Seconds that one call of sequence() takes at the least while there is work. A leader that dies in it holds its lock on."""


@dataclass(frozen=True, slots=True)
class Advance:
    """What one call of advance() did: rows moved, whether more wait, and the snapshot's xmax."""

    head: int
    moved: int
    more: bool
    xmax: int


class Sequencer:
    """Has advance() called every few milliseconds while there is work; then arms the doorbell and waits for it.

    The order matters (feed/ARCHITECTURE.md, "No doorbell is missed"): a writer takes its transaction id before it reads
    the flag. One that read it before it was set is therefore in progress in the snapshot that armed the doorbell, and the
    sequencer polls until the last such writer has ended.
    """

    def __init__(self, settings: Settings, dsn: str, metrics: Metrics | None = None) -> None:
        self._settings = settings
        self._dsn = dsn
        self._metrics = metrics
        self._bell = asyncio.Event()
        self._backoff = Backoff(settings.database.reconnect_max)
        self.leading = asyncio.Event()
        self.reconnects = -1  # connections after the first
        self._move: Any = None  # the prepared statements of a term
        self._sequence: Any = None

    async def run(self) -> None:
        """Try to lead, forever: after each term, whatever ended it, try again."""
        await supervised("sequencer", self._term, self._backoff)

    async def _term(self) -> None:
        """Wait to be elected, then lead until something ends it."""
        try:
            # The server ends a session that is silent for the lease (a stopped process, a dead link), and its lock.
            async with owned(
                self._settings.database, self._dsn, "sequencer",
                idle_session_timeout=f"{round(self._settings.sequencer.lease * 1000)}",
                synchronous_commit="on", default_transaction_isolation="read committed",
            ) as connection:  # fmt: skip
                self.reconnects += 1
                with translated():
                    await self._elected(connection)
                    self._backoff.reset()
                    await self._lead(connection)
        finally:
            self.leading.clear()

    async def _elected(self, connection: Any) -> None:
        """Return once this process holds the lock."""
        settings = self._settings
        while not await self._ask(
            connection.fetchval(
                "SELECT NOT pg_is_in_recovery() AND pg_try_advisory_lock(hashtext('feed sequencer'), hashtext($1))",
                settings.database.schema_name,
            )
        ):
            await asyncio.sleep(settings.sequencer.leader_retry)

    async def _lead(self, connection: Any) -> None:
        settings = self._settings
        loop = asyncio.get_running_loop()
        await self._ask(connection.add_listener(f"{settings.database.schema_name}_wake", self._ring))
        connection.add_termination_listener(self._ring)  # do not wait for the poll to find that out
        self._move = await self._ask(connection.prepare(_MOVE))
        self.leading.set()
        log.info("sequencing")
        self._sequence = await self._ask(connection.prepare(_SEQUENCE))
        await self._arm(connection, 0)
        idle = settings.sequencer.idle
        while True:
            await self._work(connection, idle)
            if not settings.sequencer.doorbell:
                await asyncio.sleep(settings.sequencer.poll_min)
                continue
            asleep = loop.time()
            await self._sleep(connection)
            await self._advance(connection)  # before anything else: somebody waits for it
            await self._arm(connection, 0)
            # If work is rare, waiting for the next ring costs less than polling for more work first.
            seldom = loop.time() - asleep > settings.sequencer.idle
            idle = settings.sequencer.interval if seldom else settings.sequencer.idle

    async def _work(self, connection: Any, idle: float) -> None:
        """Sequence what comes, until nothing has come for `idle` seconds; without the doorbell, until nothing is left."""
        settings = self._settings.sequencer
        quiet = 1 + round(idle / settings.interval) if settings.doorbell else 1
        rounds = max(1, round(_CALL / settings.interval))
        still = 0
        while still < quiet:
            try:
                row = await self._sequence.fetchrow(
                    settings.batch, settings.busy, settings.interval, settings.interval_busy, quiet, rounds, still,
                    timeout=self._settings.database.query_timeout,
                )  # fmt: skip
            except asyncpg.CheckViolationError:
                await self._extend(connection)
                continue
            still = row["still"]
            if self._metrics is not None:
                for age in row["ages"]:
                    self._metrics.capture_to_log.observe(max(0.0, age))

    async def _sleep(self, connection: Any) -> None:
        """Arm the bell and return when there is work."""
        settings = self._settings
        self._bell.clear()
        await self._arm(connection, 1)
        done = await self._advance(connection)
        armed_at, delay, unaware = done.xmax, settings.sequencer.poll_min, True
        while not done.moved:
            try:
                async with asyncio.timeout(delay if unaware else settings.tailer.poll):
                    await self._bell.wait()
                return
            except TimeoutError:
                delay = min(delay * 2, settings.sequencer.poll_max)
            # Ask before advancing: a writer that did not see the flag and has committed by then is found by this advance().
            unaware = await self._ask(connection.fetchval(_UNAWARE, str(armed_at)))
            done = await self._advance(connection)

    async def _advance(self, connection: Any) -> Advance:
        try:
            # Prepared, and with the driver's own time-out, which costs less.
            row = await self._move.fetchrow(
                self._settings.sequencer.batch, timeout=self._settings.database.query_timeout
            )
        except asyncpg.CheckViolationError:
            await self._extend(connection)
            return Advance(0, 1, True, 0)
        if self._metrics is not None and row["age"] is not None:
            self._metrics.capture_to_log.observe(max(0.0, row["age"]))
        return Advance(row["head"], row["moved"], row["more"], row["xmax"])

    async def _extend(self, connection: Any) -> None:
        """Make partitions: none holds the next position. Nothing is lost, because the inbox keeps it until there is one."""
        settings = self._settings
        enough = -(-settings.sequencer.batch // settings.log.partition)  # a batch may be larger than a partition
        made = await self._ask(
            connection.fetchval(
                "SELECT extend_log($1, $2)", settings.log.partition, max(settings.log.partitions_ahead, enough)
            )
        )
        log.error("the log had run out of partitions", made=made)

    async def _arm(self, connection: Any, flag: int) -> None:
        await self._ask(connection.fetchval("SELECT setval('armed', $1)", flag))

    async def _ask(self, answer: Any) -> Any:
        """Wait for the database, but not for ever: a leader that hears nothing gives up its term."""
        async with asyncio.timeout(self._settings.database.query_timeout):
            return await answer

    def _ring(self, *_: object) -> None:
        self._bell.set()
