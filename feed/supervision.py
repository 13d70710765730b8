"""Supervision: work in the background that is begun again, after a wait, whenever it fails."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from feed.errors import FeedError

log = structlog.get_logger(__name__)

_SHORTEST = 0.1
"""Seconds before the second attempt."""


class Backoff:
    """Waits between attempts: they double from 0.1 s up to `longest` seconds, and each is jittered down to its half."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._next = _SHORTEST
        self.attempts = 0
        """Attempts in a row that failed."""

    def reset(self) -> None:
        """Note that an attempt went well: the next wait is short again."""
        self._next = _SHORTEST
        self.attempts = 0

    async def wait(self) -> None:
        """Sleep until the next attempt is due."""
        delay, self._next = self._next, min(self._next * 2, self._longest)
        self.attempts += 1
        await asyncio.sleep(random.uniform(delay / 2, delay))


async def supervised(
    name: str, work: Callable[[], Awaitable[None]], backoff: Backoff, failed: Callable[[str], None] | None = None
) -> None:
    """Run `work` until it returns. When it raises, log why, wait, and run it again; only a cancellation ends it.

    A FeedError, such as a database that is away, is one line in the log, and not repeated while the reason stays the same;
    anything else is a fault of feed and logged with its traceback. `work` resets `backoff` once it does what it should.
    `failed` is told each reason in words.
    """
    last = None
    while True:
        try:
            await work()
            return
        except FeedError as error:
            reason = str(error)
            if reason != last or not backoff.attempts:
                log.warning("background work waits", work=name, error=reason)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            log.exception("background work failed", work=name)
        if failed is not None:
            failed(reason)
        last = reason
        await backoff.wait()
