"""The tailer: follows the log of one Postgres and feeds the hub. One per process, on one connection of its own."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import structlog

from feed.database.connect import owned, translated
from feed.database.log import TAIL, tail_of
from feed.fanout.hub import Hub
from feed.model.event import Event, Kind
from feed.observability.metrics import Metrics
from feed.settings.settings import Settings
from feed.supervision import Backoff, supervised

log = structlog.get_logger(__name__)


class Tailer:
    """NOTIFY is a doorbell: it only sets an event. What is new is read from the log, and a poll stands behind the bell."""

    def __init__(self, settings: Settings, dsn: str, hub: Hub, metrics: Metrics | None = None) -> None:
        self._settings = settings
        self._dsn = dsn
        self._hub = hub
        self._metrics = metrics
        self._bell = asyncio.Event()
        self._backoff = Backoff(settings.database.reconnect_max)
        self.connected = False
        self.fault: str | None = "not connected yet"  # why it is not following, in words
        self.seen_at: float | None = None  # loop time of the last good read
        self.reconnects = -1  # times that it followed anew, from the second on
        self._unknown_kind_logged = False
        self._poll: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Follow for ever; every failure ends the connection, never the hub's subscribers."""
        await supervised("tailer", self._follow_on_a_connection, self._backoff, self.failed)

    def failed(self, reason: str) -> None:
        """Note in words why the log is not followed."""
        self.connected, self.fault = False, reason

    async def _follow_on_a_connection(self) -> None:
        async with owned(self._settings.database, self._dsn, "tailer", idle_session_timeout="0") as connection:
            self._ring_again()
            try:
                with translated():
                    await self._follow(connection)
            finally:
                if self._poll is not None:
                    self._poll.cancel()

    async def _follow(self, connection: Any) -> None:
        settings, hub = self._settings, self._hub
        clock = time.monotonic  # the loop's own stands still in a turn, under uvloop
        async with asyncio.timeout(settings.tailer.timeout):
            await connection.add_listener(settings.database.schema_name, self._ring)
        connection.add_termination_listener(self._ring)  # do not wait for the poll to find that out
        async with asyncio.timeout(settings.tailer.timeout):
            tail = await connection.prepare(TAIL)
        position = await self._begin(connection)
        while True:
            # Clear before reading: a bell that rings during the read is heard.
            self._bell.clear()
            rows = await tail.fetch(position, settings.tailer.page, timeout=settings.tailer.timeout)
            read_at = clock()
            epoch, head, floor, first, *_ = rows[0]
            if epoch != hub.epoch or head < position:
                position = await self._turn(connection, position)
                continue
            hub.behind = head - position
            if position < head:
                if first != position + 1:
                    log.warning("events were pruned before they were read", after=position, floor=floor)
                    hub.restart_at(epoch, head)
                else:
                    for begin in range(0, len(rows), settings.tailer.publish_events):
                        some = rows[begin : begin + settings.tailer.publish_events]
                        events = tail_of(some, read_at)
                        self._look_for_unknown_kinds(some, events)
                        began = clock()
                        hub.publish(events)
                        await asyncio.sleep(0)  # readers stay live during a flood
                        if hub.ready:  # else it is the past that is read
                            self._time(rows[0] if begin == 0 else None, read_at, began, clock())
                position = hub.head
                if position < head:
                    continue
            hub.ready = True
            if not self.connected:
                self.connected, self.fault = True, None
                self.reconnects += 1
                log.info("following the log", epoch=hub.epoch, position=position)
                self._backoff.reset()
            self.seen_at = asyncio.get_running_loop().time()
            if connection.is_closed():
                raise ConnectionResetError("the listener's connection was closed")
            await self._bell.wait()

    def _look_for_unknown_kinds(self, rows: Sequence[Any], events: Sequence[Event]) -> None:
        """Log the first event whose kind only a newer version of feed knows; later ones pass in silence."""
        if self._unknown_kind_logged:
            return
        for row, event in zip(rows, events, strict=True):
            if event.kind is Kind.UNKNOWN:
                self._unknown_kind_logged = True
                log.warning(
                    "the log holds events of a kind that this version does not know: no subscriber is sent them",
                    kind=row["kind"], position=event.position,
                )  # fmt: skip
                return

    def _time(self, first: Any, read_at: float, began: float, ended: float) -> None:
        """What a batch took, in monotonic time; `first` is the row of a page that its first batch began with.

        The turn of the event loop that followed counts as well: what was pushed over HTTP/2 leaves in it.
        """
        metrics = self._metrics
        if metrics is None:
            return
        metrics.hub_to_socket.observe(ended - began)
        if first is not None and first["age"] is not None:
            metrics.log_to_hub.observe(max(0.0, first["age"] + began - read_at))
        if first is not None and first["row_age"] is not None:
            metrics.delivery.observe(max(0.0, first["row_age"] + ended - read_at))

    async def _begin(self, connection: Any) -> int:
        """The position to go on from. A hub that starts is given the newest events, for those who come back."""
        hub = self._hub
        async with asyncio.timeout(self._settings.tailer.timeout):
            state = await connection.fetchrow("SELECT epoch, head, floor FROM state")
        if not hub.ready:
            position = max(state["floor"], state["head"] - self._settings.hub.ring_events)
            hub.restart_at(state["epoch"], position)
        return hub.head

    async def _turn(self, connection: Any, position: int) -> int:
        """Another epoch: go on where it shares our past, start over where it does not."""
        hub = self._hub
        async with asyncio.timeout(self._settings.tailer.timeout):
            state = await connection.fetchrow(
                "SELECT s.epoch, s.head, (SELECT min(e.start_position) FROM epoch e WHERE e.epoch > $1) AS until, "
                "EXISTS (SELECT FROM epoch e WHERE e.epoch = $1) AS known FROM state s",
                hub.epoch,
            )
        shared = state["known"] and (state["until"] is None or position <= state["until"]) and position <= state["head"]
        if shared:  # as after every restart of the database's server
            log.info("the log goes on under a new epoch", old=hub.epoch, new=state["epoch"], position=position)
            hub.continue_as(state["epoch"])
            return position
        log.warning("the log has another history", old=hub.epoch, new=state["epoch"], position=position)
        hub.restart_at(state["epoch"], state["head"])
        return int(state["head"])

    def _ring(self, *_: object) -> None:
        self._bell.set()

    def _ring_again(self) -> None:
        """Ring every `poll` seconds: a timer for each wait would cost more than the wait."""
        self._bell.set()
        self._poll = asyncio.get_running_loop().call_later(self._settings.tailer.poll, self._ring_again)
