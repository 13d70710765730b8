"""The token bucket: a limit that allows a burst at once, and after it an even rate."""

import math
import time
from collections.abc import Callable

_ROUNDING = 1e-6
"""Seconds that are added to every wait, so that the rounding of the clock's numbers cannot make it too short."""


class TokenBucket:
    """Holds up to `capacity` tokens, is full at first, and gains `rate` tokens a second while it is not full.

    Of any interval of `t` seconds it gives out no more than `capacity + rate * t` tokens. `clock` returns seconds and never
    goes back.
    """

    __slots__ = ("_capacity", "_clock", "_level", "_rate", "_taken_at")

    def __init__(self, capacity: float, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._rate = rate
        self._clock = clock
        self._level = capacity  # the tokens that were left when some were last taken
        self._taken_at = clock()

    @property
    def level(self) -> float:
        """The tokens that it holds now."""
        return min(self._capacity, self._level + (self._clock() - self._taken_at) * self._rate)

    @property
    def is_full(self) -> bool:
        """Whether it holds all the tokens that it can: it then equals a new one."""
        return self._level + (self._clock() - self._taken_at) * self._rate >= self._capacity

    def take(self, amount: float = 1) -> bool:
        """Take `amount` tokens if it holds that many, else take none; returns whether they were taken."""
        now = self._clock()
        level = min(self._capacity, self._level + (now - self._taken_at) * self._rate)
        if level < amount:
            return False
        self._level, self._taken_at = level - amount, now
        return True

    def wait(self, amount: float = 1) -> float:
        """Return the seconds until `amount` tokens can be taken: 0.0 for at once, infinity for more than the capacity."""
        if amount > self._capacity:
            return math.inf
        lacking = amount - self.level
        return lacking / self._rate + _ROUNDING if lacking > 0 else 0.0
