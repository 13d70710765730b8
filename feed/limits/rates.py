"""The rates: how often one client may do each of the things that are limited."""

import time
from collections.abc import Callable
from typing import Literal, get_args

from feed.limits.rate_limit import Rate, RateLimit
from feed.settings.limits import LimitSettings

Limit = Literal["stream", "write", "read", "denied", "connection"]

MAX_CLIENTS = 100_000
"""Addresses or keys that each limit remembers at the most, with about 300 bytes for each."""


class Rates:
    """The rate limits of one process. Each has a memory of its own: a flood at one makes no other forget."""

    def __init__(self, settings: LimitSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the rates from the settings; raises ConfigurationError for a text that is none."""
        self._limits: dict[str, RateLimit] = {}
        for name in get_args(Limit):
            setting = f"{name}_rate"
            self._limits[name] = RateLimit(Rate.parse(setting, getattr(settings, setting)), MAX_CLIENTS, clock)

    def hit(self, name: Limit, client: str) -> float:
        """Count one: returns 0.0 where it is allowed, else the seconds until it will be. A refused one is not counted."""
        return self._limits[name].hit(client)

    def wait(self, name: Limit, client: str) -> float:
        """Return the seconds until one would be allowed, without counting any."""
        return self._limits[name].wait(client)
