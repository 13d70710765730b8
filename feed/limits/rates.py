"""Rates: how often somebody may do something, and when to come back otherwise."""

import re
import time
from collections.abc import Callable
from typing import Literal

from limits import RateLimitItem, parse
from limits.strategies import SlidingWindowCounterRateLimiter

from feed.errors import ConfigurationError
from feed.limits.windows import Windows
from feed.settings.limits import LimitSettings

Limit = Literal["stream", "write", "read", "denied", "connection"]

_MOST = 100_000
"""Addresses and keys that are remembered, a limit: about 300 bytes each."""
_RATE = re.compile(r"\s*(\d+)\s*(?:/|per)\s*(?:(\d+)\s*)?(second|minute|hour|day|month|year)s?\s*", re.IGNORECASE)


class Rates:
    """One for each process: limits are what one process allows. Sliding windows, bounded in memory."""

    def __init__(self, settings: LimitSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the rates; raises ConfigurationError for one that is none."""
        self._limits: dict[str, tuple[RateLimitItem, SlidingWindowCounterRateLimiter, Windows]] = {}
        for name in ("stream", "write", "read", "denied", "connection"):
            # A store each: a flood of addresses at one limit makes no other forget.
            windows = Windows(_MOST, clock)
            rate = _rate(f"{name}_rate", getattr(settings, f"{name}_rate"))
            self._limits[name] = rate, SlidingWindowCounterRateLimiter(windows), windows

    def hit(self, name: Limit, who: str) -> float:
        """Count one: 0.0 where it is allowed, else the seconds until it may be again. What is refused is not counted."""
        rate, limiter, windows = self._limits[name]
        return 0.0 if limiter.hit(rate, who) else _wait(rate, windows, who)

    def wait(self, name: Limit, who: str) -> float:
        """The same without counting: the seconds until one would be allowed."""
        rate, limiter, windows = self._limits[name]
        return 0.0 if limiter.test(rate, who) else _wait(rate, windows, who)

    def __len__(self) -> int:
        """What is remembered, over all limits."""
        return sum(len(windows) for _, _, windows in self._limits.values())


def _wait(rate: RateLimitItem, windows: Windows, who: str) -> float:
    """Seconds until the count of a full window has fallen by one: what is before it counts less and less."""
    expiry, most = rate.get_expiry(), rate.amount
    before, left, count, forgotten = windows.get_sliding_window(rate.key_for(who), expiry)
    seconds = forgotten - expiry
    if count < most:  # the one before is what is too much: its part shrinks to nothing within this window
        seconds = left - (most - count) * expiry / before if before else 0.0
    return max(0.0, seconds) + 0.001


def _rate(setting: str, text: str) -> RateLimitItem:
    """A rate out of a setting; raises ConfigurationError in plain words."""
    found = _RATE.fullmatch(text)
    if found is None or int(found[1]) < 1 or (found[2] is not None and int(found[2]) < 1):
        raise ConfigurationError(
            f"{setting}: {text!r} is no rate. Write how many in what time, as in FEED_{setting.upper()}=100/minute "
            "or 20/10 seconds"
        )
    return parse(text.strip())
