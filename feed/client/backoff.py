"""Back-off: how long a client waits before it tries again."""

import random
from collections.abc import Callable
from dataclasses import dataclass

# Never at once, whatever chance or a server says: `retry: 0` would make a client knock hundreds of times a
# second.
_FLOOR = 0.1
# The longest wait a server can ask for.
_LONGEST_ASKED = 600.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with full jitter; all times in seconds.

    `ceiling` bounds the growth, `random` returns a number from 0 to 1.
    """

    ceiling: float = 30.0
    random: Callable[[], float] = random.random

    def delay(self, base: float, failures: int, asked: float | None = None) -> float:
        """Return the wait after `failures` failures in a row: up to `base` at first, doubling from there.

        A `base` over the ceiling was the server's wish and stays; `asked` is a wait it named, taken as the
        least.
        """
        grown = min(self.ceiling, base * 2.0 ** min(failures, 32))
        jittered = self.random() * min(max(base, grown), _LONGEST_ASKED)
        return max(_FLOOR, jittered, min(asked or 0.0, _LONGEST_ASKED))

    def exactly(self, asked: float) -> float:
        """Return the wait that a server jittered itself, within bounds."""
        return max(_FLOOR, min(asked, _LONGEST_ASKED))
