"""A run of a source, which is one fetch of its list and the writing of what changed: how it begins and how it ends."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from feed.model.source import NO_CHANGES, BadRow, Counts, Source


@dataclass(frozen=True, slots=True)
class Validators:
    """What lets a server say that a list has not changed since it was last applied in whole."""

    url: str
    etag: str | None
    last_modified: str | None
    digest: bytes
    """SHA-256 of the answer's body."""
    version: str
    """Of feed, which might read the same answer otherwise."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run one source, and what the run before left."""

    source: Source
    token: UUID
    validators: Validators | None

    @property
    def name(self) -> str:
        """Return the source's name."""
        return self.source.name


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is to be remembered of a posting that is written."""

    external_id: str
    digest: bytes
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Unseen:
    """A posting of a rolling source that is not listed any more and whose own page may tell whether it is open."""

    external_id: str
    url: str
    gone: int
    """Times in a row that its page was not there."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What a run learnt from a list."""

    suspect: str | None
    used_acceptance: bool
    """Whether the list was believed because a person had said so, which holds once."""
    company: str | None
    counts: tuple[int, ...]
    empty_runs: int
    empty_at: datetime | None
    found: int
    bad: int
    faults: tuple[BadRow, ...]
    validators: Validators | None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. `listed` is None where there was no new list: nothing had changed, or the run failed."""

    wait: float
    """Seconds between runs from now on."""
    delay: float
    """Seconds until the next one."""
    changes: Counts = NO_CHANGES
    error: str | None = None
    listed: Listed | None = None
    attribution: str | None = None
    min_interval: float = 0.0
    syndicate: bool = True
