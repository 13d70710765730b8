"""Pacing: work that arrives in a herd (a thundering herd) is admitted a few at a time, so that others need not wait for it.

Otherwise ten thousand clients that reconnect together would be served in one turn of the event loop: for seconds no event
would be read from the log or sent to live subscribers.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

PER_TURN = 8
"""How many of a herd are admitted in one turn of the event loop, which then takes a few milliseconds."""
REQUESTS_PER_WRITE = 16
"""How many requests of one connection begin together, so that their answers leave as one write."""


class Pacer:
    """Admits a few of a herd in each turn of the event loop, in the order in which they came.

    There is one for each kind of herd: connections and requests that begin, streams that replay, frames of clients that
    send many. Where `seconds` is given, one that goes on and on within a turn is admitted only for so long.
    """

    def __init__(self, per_turn: int = PER_TURN, seconds: float | None = None) -> None:
        self._per_turn = per_turn
        self._seconds = seconds
        self._began = 0.0  # of the turn, by the performance counter
        self._left = per_turn
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._scheduled = False

    async def admitted(self, count: int = 1) -> None:
        """Wait until `count` more, which belong together, are admitted; without a herd that is at once."""
        self._schedule()
        if self._left > 0 and not self._waiting and not self._overrun():
            self._left -= count
            return
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, lambda: None if admitted.done() else admitted.set_result(None)))
        await admitted

    def call(self, do: Callable[[], None]) -> None:
        """Call `do` when it is admitted; without a herd that is at once."""
        self._schedule()
        if self._left > 0 and not self._waiting and not self._overrun():
            self._left -= 1
            do()
        else:
            self._waiting.append((1, do))

    def _overrun(self) -> bool:
        return self._seconds is not None and time.perf_counter() - self._began > self._seconds

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._began = time.perf_counter()
            asyncio.get_running_loop().call_soon(self._refill)

    def _refill(self) -> None:
        self._scheduled = False
        self._left = self._per_turn
        while self._left > 0 and self._waiting:
            count, do = self._waiting.popleft()
            self._left -= count
            do()
        if self._waiting:
            self._schedule()
