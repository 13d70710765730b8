"""Admission: who may open a connection. It is decided on the bare socket, before anything is made for the connection."""

import asyncio
from collections import Counter
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

_QUIET = 1.0
"""Seconds between two log lines about connections that were refused."""


class Admission:
    """Counts open and new connections by what an address counts as.

    `bucket` returns the name under which an address counts; no limit applies where it is empty. `wait` counts a new
    connection of such a name and returns how many seconds it came too early.
    """

    def __init__(
        self, most: int, bucket: Callable[[str], str], wait: Callable[[str], float], refused: Counter[str]
    ) -> None:
        self._most = most
        self._bucket = bucket
        self._wait = wait
        self._open: dict[str, int] = {}
        self._refused = refused  # by reason, since the process began
        self._unsaid: Counter[str] = Counter()
        self._last = ""

    def enter(self, address: str) -> str | None:
        """Return the name under which a new connection counts until it has `left`; None where it must be closed."""
        bucket = self._bucket(address)
        if not bucket:
            return bucket
        count = self._open.get(bucket, 0)
        if count >= self._most:
            self.refuse(address, "too_many")
            return None
        if self._wait(bucket) > 0:
            self.refuse(address, "too_fast")
            return None
        self._open[bucket] = count + 1
        return bucket

    def left(self, bucket: str) -> None:
        """Stop counting a connection that was let in and is over; `bucket` is what `enter` returned."""
        if not bucket:
            return
        count = self._open[bucket] - 1
        if count:
            self._open[bucket] = count
        else:
            del self._open[bucket]

    def refuse(self, address: str, reason: str) -> None:
        """Count a connection that is refused for `reason`. The log has one line a second, however many there are."""
        if not self._unsaid:
            asyncio.get_running_loop().call_later(_QUIET, self._say)
        self._refused[reason] += 1
        self._unsaid[reason] += 1
        self._last = address

    def _say(self) -> None:
        said, self._unsaid = self._unsaid, Counter()
        log.warning("connections refused", **said, last=self._last)
