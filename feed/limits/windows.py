"""Windows: the memory of the rate limits, a store for `limits` that is bounded and takes no thread.

The library's own memory starts a thread within 10 ms of every hit, which then looks at every key that it has: under a flood
from many addresses that is what would hurt. Here a hit also forgets two windows that nobody has used, and over the bound the
one that was used longest ago goes.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from limits.storage.base import SlidingWindowCounterSupport, Storage


class _Window:
    """Hits in the current window and in the one before it."""

    __slots__ = ("before", "count", "expiry", "number")

    def __init__(self, number: int, expiry: int) -> None:
        self.number = number
        self.expiry = expiry
        self.count = 0
        self.before = 0


class Windows(Storage, SlidingWindowCounterSupport):
    """Sliding-window counters of at most `most` keys, two numbers each; `clock` in seconds, never set back."""

    STORAGE_SCHEME = None
    base_exceptions = ValueError

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most = most
        self._clock = clock
        self._windows: OrderedDict[str, _Window] = OrderedDict()  # the one used longest ago first

    def __len__(self) -> int:
        return len(self._windows)

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count `amount` hits, if the last `expiry` seconds then hold at most `limit`."""
        now = self._clock()
        self._forget(now)
        window = self._turned(key, expiry, now)
        if window is None:
            window = self._windows[key] = _Window(int(now // expiry), expiry)
        self._windows.move_to_end(key)
        left = 1 - now / expiry % 1
        if int(window.before * left + window.count) + amount > limit:
            return False
        window.count += amount
        return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Of the window before: hits, and seconds that they count; of this one: hits, and seconds until it is forgotten."""
        now = self._clock()
        window = self._turned(key, expiry, now)
        left = (1 - now / expiry % 1) * expiry
        if window is None:
            return 0, 0.0, 0, left + expiry
        return window.before, left if window.before else 0.0, window.count, left + expiry

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget a key."""
        self.clear(key)

    def _turned(self, key: str, expiry: int, now: float) -> _Window | None:
        """The window of a key, as of now."""
        window = self._windows.get(key)
        if window is None:
            return None
        number = int(now // expiry)
        if number != window.number:
            window.before = window.count if number == window.number + 1 else 0
            window.number, window.count = number, 0
        return window

    def _forget(self, now: float) -> None:
        """Let go of what counts no more: two at the most, so that it takes no time and yet gets further than what comes."""
        for _ in range(2):
            if not self._windows:
                return
            key, window = next(iter(self._windows.items()))
            if len(self._windows) < self._most and now // window.expiry <= window.number + 1:
                return
            del self._windows[key]

    # What the base class wants of every store; sliding windows use none of it.

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Not for fixed windows."""
        raise NotImplementedError

    def get(self, key: str) -> int:
        """Hits of the current window."""
        window = self._windows.get(key)
        return 0 if window is None else window.count

    def get_expiry(self, key: str) -> float:
        """Not for fixed windows."""
        raise NotImplementedError

    def check(self) -> bool:
        """It is always there."""
        return True

    def reset(self) -> int:
        """Forget everything; how much that was."""
        count = len(self._windows)
        self._windows.clear()
        return count

    def clear(self, key: str) -> None:
        """Forget a key."""
        self._windows.pop(key, None)
