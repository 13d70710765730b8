"""A log in memory whose reads a test can hold back and let fail."""

import asyncio
from datetime import datetime

from feed.fanout.history import Found, LogState
from feed.model.event import Event
from feed.model.filter import Filter, Terms
from tests.unit.events import EPOCH, event


class FakeLog:
    """A log of `head` events whose reads wait until they are let go."""

    def __init__(self, head: int = 100) -> None:
        self.head = head
        self.floor = 0
        self.every = 1
        """Every so many events are by Acme."""
        self.reads: list[tuple[int, int]] = []
        self.finds: list[tuple[int, int]] = []
        self.under_way = 0
        self.most_under_way = 0
        self.fault: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()

    async def state(self) -> LogState:
        return LogState(EPOCH, self.head, self.floor)

    async def read(self, after: int, upto: int) -> list[Event]:
        self.reads.append((after, upto))
        return await self._answer(after, upto)

    async def find(self, after: int, upto: int, wanted: Filter) -> Found:
        """Some of what the filter does not want comes along, as the reader's contract allows."""
        self.finds.append((after, upto))
        events = await self._answer(after, upto)
        found = [one for one in events if wanted.matches(Terms(one.job)) or one.position % 7 == 0]
        return Found(self.head, self.floor, found)

    async def _answer(self, after: int, upto: int) -> list[Event]:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.asked.set()
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.fault is not None:
            raise self.fault
        numbers = range(max(after, self.floor) + 1, min(upto, self.head) + 1)
        return [event(number, company="Acme" if number % self.every == 0 else "Other") for number in numbers]

    async def epoch_end(self, epoch: int) -> int | None:
        return None

    async def position_before(self, instant: datetime) -> int:
        return 0
