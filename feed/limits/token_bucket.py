"""A bucket: so many at once, and then so many a second."""

import time
from collections.abc import Callable


class Bucket:
    """Holds `most`, is full at first, and fills at `rate` a second."""

    __slots__ = ("_at", "_clock", "_left", "_most", "_rate")

    def __init__(self, most: float, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = float(most)
        self._rate = rate
        self._clock = clock
        self._left = self._most
        self._at = clock()

    def take(self, amount: float = 1) -> bool:
        """Whether there was enough for it."""
        if self._left < amount:  # only now does it matter what has come since
            now = self._clock()
            self._left = min(self._most, self._left + (now - self._at) * self._rate)
            self._at = now
        if self._left < amount:
            return False
        self._left -= amount
        return True
