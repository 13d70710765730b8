"""When a source is fetched next: often while it changes, seldom while it does not, and never all at the same moment."""

import random
from dataclasses import dataclass

from feed.settings.ingest import IngestSettings

_JITTER = 0.1
"""The part of an interval by which it may be shorter or longer."""


@dataclass(frozen=True, slots=True)
class Next:
    """When the next run is due, in seconds."""

    wait: float
    """The interval from now on."""
    delay: float
    """The time until the next run."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """The intervals of one source; `least` is what its terms ask for, in seconds."""

    settings: IngestSettings
    least: float

    @property
    def shortest(self) -> float:
        """Return the interval of a source that changes."""
        return max(self.settings.interval, self.least)

    def _jittered(self, wait: float) -> float:
        """Return an interval that is shorter or longer, but never under what the terms ask for."""
        return random.uniform(max(self.least, wait * (1 - _JITTER)), wait * (1 + _JITTER))

    def after_change(self) -> Next:
        """Return what follows a list that changed something, or from which something will follow."""
        return Next(self.shortest, self._jittered(self.shortest))

    def after_silence(self, before: float | None) -> Next:
        """Return what follows a list like the one before, after an interval of `before`."""
        wait = min((before or self.shortest) * 2, max(self.settings.interval_max, self.shortest))
        wait = max(wait, self.shortest)
        return Next(wait, self._jittered(wait))

    def after_failure(self, before: float | None, failures: int, asked: float | None) -> Next:
        """Return what follows the failure after `failures` others in a row; `asked` is the server's `Retry-After`."""
        longest = max(self.settings.interval_max, self.shortest)
        delay = self._jittered(min(self.shortest * 2.0 ** min(failures, 30), longest))
        return Next(before or self.shortest, max(delay, asked or 0.0))
