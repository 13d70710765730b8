"""The canary: a row that nobody posted takes the way of all events, and its arrival is timed here."""

import time
from collections.abc import Callable

from feed.model.event import Event


class Canary:
    """The subscriber inside each process that is shown canaries; `observe` is told how long each took, in seconds."""

    def __init__(self, observe: Callable[[float], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._observe = observe
        self._began = clock()
        self._newest: float | None = None  # when it was written, in the clock's time
        self.seconds: float | None = None
        """How long the newest one took from its row to here."""

    def note_arrival(self, event: Event) -> None:
        """One is here, and has been handed to nobody else."""
        if event.captured is None:  # the source does not know when it was written
            return
        self.seconds = max(0.0, self._clock() - event.captured)
        self._newest = event.captured if self._newest is None else max(self._newest, event.captured)
        self._observe(self.seconds)

    @property
    def age(self) -> float:
        """Seconds since the newest that has arrived was written; before the first one, since the process began."""
        return max(0.0, self._clock() - (self._began if self._newest is None else self._newest))
