"""Turns: what comes in herds is done a few at a time, so that nobody else waits for all of it.

Ten thousand clients that come back together would otherwise be one turn of the event loop: seconds in which no event is
read from the log and nobody live is told of one.
"""

import asyncio
from collections import deque

EACH = 32
"""Of a herd, so many in one turn of the event loop: some milliseconds."""
TOGETHER = 16
"""Requests on one connection that begin together: their answers leave as one write."""


class Turns:
    """One for each herd: connections and requests that begin, streams that replay, frames of those who send many."""

    def __init__(self, each: int = EACH) -> None:
        self._each = each
        self._left = each
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._scheduled = False

    async def next(self, count: int = 1) -> None:
        """Wait for a turn, for as many as come together, in order; without a herd it is at once."""
        self._schedule()
        if self._left > 0 and not self._waiting:
            self._left -= count
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        await turn

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._refill)

    def _refill(self) -> None:
        self._scheduled = False
        self._left = self._each
        while self._left > 0 and self._waiting:
            count, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._left -= count
        if self._waiting:
            self._schedule()
