"""A source: a public board from which feed fetches postings, as a person added it and as its last runs found it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from feed.errors import Fault

State = Literal["new", "ok", "suspect", "failing", "paused"]


@dataclass(frozen=True, slots=True)
class NewSource:
    """A source as it is added."""

    adapter: str
    """The adapter's name: `greenhouse`."""
    board: str
    """The board's name, as the adapter takes it: `acme`."""
    host: str
    """The host of what is fetched. Sources of one host are fetched one after the other."""
    url: str | None = None
    """What is fetched instead of the adapter's own address; None: that."""
    mapping: str | None = None
    """The text of the mapping file (TOML) that says how fields are found in JSON that no adapter knows."""
    switched_on: bool = False
    """Whether a person switched it on although its adapter is off."""
    attribution: str | None = None
    """Whom the source wants named."""
    min_interval: float = 0.0
    """Seconds between two runs at the least, by the source's terms."""
    syndicate: bool = True
    """Whether its postings may be passed on to other boards, by the source's terms."""

    @property
    def name(self) -> str:
        """Return the source's name, which is also the `source` of its postings: `greenhouse:acme`."""
        return f"{self.adapter}:{self.board}"


@dataclass(frozen=True, slots=True)
class Counts:
    """Postings that were posted, updated and closed."""

    posted: int = 0
    updated: int = 0
    closed: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.posted + other.posted, self.updated + other.updated, self.closed + other.closed)

    def __bool__(self) -> bool:
        return bool(self.posted or self.updated or self.closed)

    def __str__(self) -> str:
        return f"{self.posted} posted, {self.updated} updated, {self.closed} closed"


NO_CHANGES = Counts()
"""Nothing was changed."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A posting of the newest list that could not be read, and was left out."""

    external_id: str | None
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class Source(NewSource):
    """A source as it is kept. Times are aware."""

    added_at: datetime | None = None
    paused_at: datetime | None = None
    """When it was paused; None: it is not."""
    accepted: bool = False
    """Whether the next complete list is believed, whatever is suspect about it."""
    running: bool = False
    """Whether a run is under way."""
    next_at: datetime | None = None
    """When the next run is due."""
    wait: float | None = None
    """Seconds between runs at present; None before the first one."""
    tried_at: datetime | None = None
    """When the last run ended, well or not."""
    succeeded_at: datetime | None = None
    """When a run last went through, also one that found nothing new; None: none has, so the first is not over."""
    changed_at: datetime | None = None
    """When a run last changed any posting."""
    failures: int = 0
    """Runs in a row that failed."""
    error: str | None = None
    """Why the last run failed; None: it did not."""
    suspect: str | None = None
    """Why the newest list is not believed, so that nothing is closed; None: it is believed."""
    suspect_at: datetime | None = None
    """Since when lists of it have not been believed."""
    company: str | None = None
    """The company's name, as the board told it at first or as was accepted."""
    counts: tuple[int, ...] = ()
    """Postings in each of the last five complete lists that were believed, the oldest first."""
    empty_runs: int = 0
    """Empty lists in a row that are not believed yet."""
    empty_at: datetime | None = None
    """When the first of these was fetched."""
    found: int | None = None
    """Postings in the newest list, the bad ones among them; None before the first."""
    open: int = 0
    """Postings of it that were open when the last run ended."""
    bad: int = 0
    """Postings of the newest list that could not be read."""
    faults: tuple[BadRow, ...] = ()
    """The first of these."""
    total: Counts = NO_CHANGES
    """Since the source was added."""
    last_change: Counts = NO_CHANGES
    """What the run of `changed_at` changed."""

    @property
    def state(self) -> State:
        """Return what most concerns a person who looks after it."""
        if self.paused_at is not None:
            return "paused"
        if self.error is not None:
            return "failing"
        if self.suspect is not None:
            return "suspect"
        return "new" if self.succeeded_at is None else "ok"
