"""The canary: a row that stands for no posting takes the way of all events, and this process measures how long it took."""

import time
from collections.abc import Callable

from feed.model.event import Event


class Canary:
    """Measures the canaries that the hub shows it.

    `observe` is called with the seconds that each canary took from its row to here. `clock` returns monotonic seconds.
    """

    def __init__(self, observe: Callable[[float], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._observe = observe
        self._began = clock()
        self._newest: float | None = None  # when the newest canary was written, by `clock`
        self.seconds: float | None = None
        """Seconds that the latest canary took; None before the first one."""

    def note_arrival(self, event: Event) -> None:
        """Measure a canary that was published. An event without `captured` is ignored."""
        if event.captured is None:
            return
        self.seconds = max(0.0, self._clock() - event.captured)
        self._newest = event.captured if self._newest is None else max(self._newest, event.captured)
        self._observe(self.seconds)

    @property
    def age(self) -> float:
        """Seconds since the newest canary was written; before the first one arrives, seconds since the process began."""
        return max(0.0, self._clock() - (self._began if self._newest is None else self._newest))
