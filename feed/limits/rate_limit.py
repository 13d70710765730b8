"""The rate limit: a token bucket for each address or key, in bounded memory."""

import itertools
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from feed.errors import ConfigurationError
from feed.limits.token_bucket import TokenBucket

_EXAMINED = 4
"""Buckets, of those not used for longest, that each hit examines for full ones to forget."""

_TEXT = re.compile(
    r"\s*(\d{1,9})\s*(?:/|per)\s*(?:(\d{1,9})\s*)?(second|minute|hour|day|month|year)s?\s*", re.IGNORECASE
)
_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400, "month": 30 * 86_400, "year": 365 * 86_400}


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so many seconds: all of them may come at once, and later ones as evenly as that."""

    amount: int
    seconds: int

    @classmethod
    def parse(cls, setting: str, text: str) -> Self:
        """Read the value of a setting, such as `60/minute` or `20/10 seconds`; raises ConfigurationError."""
        found = _TEXT.fullmatch(text)
        amount, periods = (int(found[1]), int(found[2] or 1)) if found else (0, 0)
        if found is None or amount < 1 or periods < 1:
            raise ConfigurationError(
                f"{setting}: {text!r} is no rate. Write how many in what time, as in FEED_{setting.upper()}=100/minute "
                "or 20/10 seconds"
            )
        return cls(amount, periods * _SECONDS[found[3].lower()])


class RateLimit:
    """Allows each client the rate, and remembers those that have used it within the time that a bucket takes to fill.

    A client that is not remembered has a full bucket. Each hit forgets two full buckets of the least recently used ones, so
    that no thread or timer has to. At `max_clients`, a new client takes the place of one whose bucket is full, if one is
    among those examined, else of the least recently used one.
    """

    def __init__(self, rate: Rate, max_clients: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._max_clients = max_clients
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()  # the least recently used first

    def __len__(self) -> int:
        """Return how many clients are remembered."""
        return len(self._buckets)

    def hit(self, client: str) -> float:
        """Count one: returns 0.0 where it is allowed, else the seconds until it will be. A refused one is not counted."""
        self._forget_full()
        bucket = self._buckets.get(client)
        if bucket is None:
            if len(self._buckets) >= self._max_clients:
                self._buckets.popitem(last=False)
            bucket = TokenBucket(self._rate.amount, self._rate.amount / self._rate.seconds, self._clock)
            self._buckets[client] = bucket
        else:
            self._buckets.move_to_end(client)
        return 0.0 if bucket.take() else bucket.wait()

    def wait(self, client: str) -> float:
        """Return the seconds until one would be allowed, without counting any."""
        bucket = self._buckets.get(client)
        return 0.0 if bucket is None else bucket.wait()

    def _forget_full(self) -> None:
        """Forget up to two full buckets: faster than new ones come, and yet in the same time for every hit."""
        examined = itertools.islice(self._buckets.items(), _EXAMINED)
        full = [client for client, bucket in examined if bucket.is_full]
        for client in full[:2]:
            del self._buckets[client]
