"""Refusals: how many requests a connection and an address may have refused before the next are refused unheard.

A request that is answered with 401, 403 or 429, and a stream that is told goodbye at once, have cost a whole request, and
none of the limits counts them: the limit has been reached already, or was never asked. So refusals have a ration of their
own, for each connection and, where limits by address apply, for each address. Who has used it up is refused by the
protocol, before the application, until the ration has filled up again.
"""

from collections import OrderedDict
from collections.abc import Callable

from feed.limits.token_bucket import TokenBucket

_ADDRESSES = 10_000
"""Addresses that are remembered, about 400 bytes each; the one that was refused longest ago is forgotten first."""


class Ration:
    """Counts refusals against a token bucket."""

    __slots__ = ("_bucket", "_used_up")

    def __init__(self, most: float, rate: float) -> None:
        self._bucket = TokenBucket(most, rate)
        self._used_up = False

    def count(self) -> None:
        """Count one refusal."""
        self._used_up = not self._bucket.take()

    def used_up(self) -> bool:
        """Whether the next request is to be refused at once; each False after a True uses up one more."""
        if self._used_up:
            self._used_up = not self._bucket.take()
        return self._used_up


class Rations:
    """The rations that one connection draws on: its own, and its address's where limits by address apply."""

    __slots__ = ("_rations",)

    def __init__(self, *rations: Ration) -> None:
        self._rations = rations

    def count(self) -> None:
        """Count one refused request."""
        for ration in self._rations:
            ration.count()

    def used_up(self) -> bool:
        """Whether the next request is to be refused without asking the application."""
        return any(ration.used_up() for ration in self._rations)


class Refusals:
    """Hands out rations: `most` refusals in a row, then `rate` a second, for each connection and each address.

    `bucket` returns the name under which limits count an address, and an empty text where none applies; `crowds` returns
    whether many clients come from an address, on connections that they share: those have the ration of `crowd` clients.
    """

    def __init__(
        self, most: float, rate: float, bucket: Callable[[str], str], crowds: Callable[[str], bool], crowd: int
    ) -> None:
        self._most = most
        self._rate = rate
        self._bucket = bucket
        self._crowds = crowds
        self._crowd = crowd
        self._of_address: OrderedDict[str, Ration] = OrderedDict()

    def rations(self, address: str) -> Rations:
        """Return the rations of a new connection from `address`."""
        clients = self._crowd if self._crowds(address) else 1
        own = Ration(self._most * clients, self._rate * clients)
        bucket = self._bucket(address)
        if not bucket:
            return Rations(own)
        shared = self._of_address.setdefault(bucket, Ration(self._most, self._rate))
        self._of_address.move_to_end(bucket)
        if len(self._of_address) > _ADDRESSES:
            self._of_address.popitem(last=False)
        return Rations(own, shared)
