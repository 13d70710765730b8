"""The keeper of attached tables, in the process whose sequencer leads: it puts triggers on partitions that came, and
compares a table with its postings when there is a reason to.
"""

import asyncio
from typing import Any

import structlog

from feed.database.attach import equip
from feed.database.comparison import compare
from feed.database.connect import owned, translated
from feed.database.sequencer import Sequencer
from feed.errors import FeedError
from feed.settings.settings import Settings
from feed.supervision import Backoff, supervised

log = structlog.get_logger(__name__)

_LOOK = 1.0
"""Seconds between two looks whether there is a reason to compare a table."""
_BROKEN = 60.0
"""Seconds for which a table that cannot be compared is left alone: what is wrong with it wants a person."""
_EQUIP = 10.0
"""Seconds between two looks at the triggers and partitions of each table."""

_DUE = """
SELECT a.id, a.source FROM attachment a
 WHERE NOT a.ending AND (a.pass IS NOT NULL OR (a.compared_at IS NULL AND a.broken IS NULL)
   OR EXISTS (SELECT FROM attachment_doubt d WHERE d.attachment = a.id)
   OR clock_timestamp() - a.compared_at > make_interval(secs => $1))
 ORDER BY a.id
"""


class MirrorKeeper:
    """Looks after the attached tables while this process leads, on a connection of its own."""

    def __init__(self, settings: Settings, dsn: str, sequencer: Sequencer) -> None:
        self._settings = settings
        self._dsn = dsn
        self._sequencer = sequencer
        self._backoff = Backoff(settings.database.reconnect_max)
        self._rest: dict[int, float] = {}
        """Until when a table is left alone, in the loop's time: for as long as its last comparison took, at least."""

    async def run(self) -> None:
        """Work for ever, whenever this process leads."""
        await supervised("attached tables", self._work_while_leading, self._backoff)

    async def _work_while_leading(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._sequencer.leading.wait()
            async with owned(
                self._settings.database, self._dsn, "attached tables",
                idle_session_timeout="0", default_transaction_isolation="read committed",
            ) as connection:  # fmt: skip
                equipped = -_EQUIP
                while self._sequencer.leading.is_set():
                    if loop.time() - equipped >= _EQUIP:
                        await self._equip(connection)
                        equipped = loop.time()
                    await self._compare(connection)
                    self._backoff.reset()
                    await asyncio.sleep(_LOOK)

    async def _equip(self, connection: Any) -> None:
        with translated():
            rows = await connection.fetch("SELECT id, source FROM attachment WHERE NOT ending ORDER BY id")
        for row in rows:
            try:
                changed = await equip(connection, self._settings.database.schema_name, row["id"], attempts=1)
            except FeedError as error:
                if connection.is_closed():
                    raise
                log.warning("an attached table lacks triggers", source=row["source"], error=str(error))
                continue
            if changed:
                log.info("triggers were made", source=row["source"], tables=changed)

    async def _compare(self, connection: Any) -> None:
        loop = asyncio.get_running_loop()
        with translated():
            rows = await connection.fetch(_DUE, self._settings.attached.compare_every)
        for row in rows:
            began = loop.time()
            if self._rest.get(row["id"], began) > began:
                continue
            done = await compare(connection, self._settings.database.schema_name, row["id"], self._settings.log)
            least = _BROKEN if done is None else _LOOK
            self._rest[row["id"]] = loop.time() + max(least, loop.time() - began)
            if done is not None and done.made:
                log.info("compared an attached table", source=row["source"], rows=done.read, events=done.made)
