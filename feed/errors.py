"""The one tree of errors; `feed.http.problems` maps it to HTTP, `feed.cli` to exit codes."""

from collections.abc import Sequence
from dataclasses import dataclass


class FeedError(Exception):
    """Anything that feed itself reports; its text says what was wrong and what to do."""


class ConfigurationError(FeedError):
    """A setting, a flag or the environment asks for something that cannot work."""


class DatabaseRefused(FeedError):
    """The database answers but cannot carry a feed (standby, pooler, rights, newer schema)."""


class DatabaseUnavailable(FeedError):
    """The database does not answer now; the same call may succeed later."""


class Unauthorized(FeedError):
    """There is no credential, or not a good one; `reason` is a word: missing, malformed, unknown, expired or revoked."""

    def __init__(self, text: str, reason: str) -> None:
        self.reason = reason
        super().__init__(text)


class Forbidden(FeedError):
    """The credential is good, and not for this."""


class TooMany(FeedError):
    """A limit of requests was reached; `seconds` is when to come back."""

    def __init__(self, text: str, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(text)


class NotFound(FeedError):
    """There is no such posting."""


class WrittenElsewhere(FeedError):
    """A posting is a row of an attached table, and is changed there alone."""


class TooSlow(FeedError):
    """A request did not come in time."""


class TooLarge(FeedError):
    """A request or an item in it is over its bound in bytes."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one field: `index` is the item's place in the request, from 0, and `line` its line, from 1."""

    field: str
    message: str
    index: int | None = None
    line: int | None = None


class Invalid(FeedError):
    """Input was refused; `faults` names every field (the first hundred of them)."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        first = self.faults[0]
        where = f"item {first.index}, " if first.index is not None else ""
        super().__init__(f"{where}{first.field}: {first.message}")
