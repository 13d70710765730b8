"""One request a host at a time, and a gap between two."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_MANY = 1_000
"""Hosts from which on those that nobody waits for are forgotten."""


@dataclass(slots=True)
class _Lane:
    """One host."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    free_at: float = 0.0


class Lanes:
    """Lets one request to each host go at a time, in the order in which they came."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    @asynccontextmanager
    async def turn(self, host: str, gap: float) -> AsyncIterator[None]:
        """Wait for one's turn and hold it; the next one begins `gap` seconds after leaving at the earliest."""
        loop = asyncio.get_running_loop()
        lane = self._lanes.setdefault(host, _Lane())
        lane.waiting += 1
        try:
            async with lane.lock:
                await asyncio.sleep(max(0.0, lane.free_at - loop.time()))
                try:
                    yield
                finally:
                    lane.free_at = loop.time() + gap
        finally:
            lane.waiting -= 1
            if len(self._lanes) > _MANY:
                self._forget(loop.time())

    def _forget(self, now: float) -> None:
        self._lanes = {name: lane for name, lane in self._lanes.items() if lane.waiting or lane.free_at > now}
