"""What a played board holds: postings that come, change and go by a script, and the counts of that."""

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Literal

Fault = Literal[
    "truncated", "empty", "nothing", "not_found", "gone", "server", "busy_seconds", "busy_date", "private", "huge", "bomb",
    "drip", "charset", "undecodable", "broken", "entities",
]  # fmt: skip
"""What a list's answer can be instead of a list:

truncated     half of the body that its head announces
empty         200 without a body
nothing       200 with a list of no postings
not_found     404
gone          410
server        500
busy_seconds  429 with Retry-After in seconds
busy_date     429 with Retry-After as a date
private       302 to a private address
huge          65 MiB
bomb          256 MiB in a quarter of a megabyte of gzip
drip          a byte at a time, for ever
charset       UTF-8 that is declared as ISO 8859-1 (which can be read)
undecodable   ISO 8859-1 that is declared as UTF-8
broken        JSON or XML that breaks off in its middle, in a complete answer
entities      XML whose entities expand
"""
ROLLING = ("remotive", "remoteok", "rss", "jsonld")
SOURCES = (
    "greenhouse", "lever", "lever-eu", "ashby", "smartrecruiters", "recruitee", "personio", "json", *ROLLING,
)  # fmt: skip
WINDOW = 50
"""Postings that a list holds which only has the newest."""

_EPOCH = datetime(2026, 10, 1, 8, tzinfo=UTC)
_TITLES = (
    "Site Reliability Engineer",
    "Bäcker:in",
    "Nurse Practitioner",
    "Data Engineer",
    "Carpenter",
    "Teacher & Tutor",
)
_CITIES = ("Berlin, Germany", "Paris, France", "Toronto, Canada", "Zürich, Switzerland")


@dataclass(frozen=True, slots=True)
class Job:
    """One posting of a board, which each source tells in its own way."""

    id: int
    title: str
    city: str
    revision: int = 0

    @property
    def posted_at(self) -> datetime:
        return _EPOCH + timedelta(minutes=self.id)

    @property
    def shown(self) -> str:
        """The title as the board shows it."""
        return f"{self.title} #{self.id}" + (f" (revision {self.revision})" if self.revision else "")


@dataclass
class Board:
    """A board of one source."""

    source: str
    name: str
    host: str
    """Where it is served: scheme, host and port."""
    jobs: dict[int, Job] = field(default_factory=dict)
    posted: int = 0
    updated: int = 0
    closed: int = 0
    told: int = 0
    """Whole lists that were answered since the last change, also by 304."""
    reads: int = 0
    """Requests for the list, whatever was answered."""
    clock: timedelta = timedelta()
    """By how much its Date is wrong."""
    fault: Fault | None = None
    """What every answer is, until it is None again."""
    next_faults: deque[Fault] = field(default_factory=deque)
    """What the next answers are, one each."""
    _ids: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def rolling(self) -> bool:
        return self.source in ROLLING

    @property
    def company(self) -> str:
        return f"Grünwald & Söhne {self.name}"

    def post(self, number: int = 1) -> list[Job]:
        """Post so many new postings."""
        made = [
            Job(id, _TITLES[id % len(_TITLES)], _CITIES[id % len(_CITIES)]) for _, id in zip(range(number), self._ids)
        ]
        self.jobs.update((job.id, job) for job in made)
        self.posted += number
        self.told = 0
        return made

    def update(self, id: int) -> Job:
        """Change the title of a posting."""
        self.jobs[id] = job = replace(self.jobs[id], revision=self.jobs[id].revision + 1)
        self.updated += 1
        self.told = 0
        return job

    def close(self, id: int) -> None:
        """Take a posting off the board."""
        del self.jobs[id]
        self.closed += 1
        self.told = 0

    def listed(self) -> list[Job]:
        """Return the postings of the list, the newest first."""
        newest = sorted(self.jobs.values(), key=lambda job: -job.id)
        return newest[:WINDOW] if self.rolling else newest

    def counts(self) -> dict[str, int]:
        return {"posted": self.posted, "updated": self.updated, "closed": self.closed, "open": len(self.jobs)}


READS = 3
"""Whole lists that a board answers between two changes, so that a reader sees each: a posting closes after two without."""


class Churn:
    """Changes boards at random, from a seed: each in its turn posts, updates or closes one posting.

    A board that has not told its last change yet is left alone, so that what a reader has seen can be compared with the
    script. A board keeps between `least` and `most` postings, so that no list is suspiciously short.
    """

    def __init__(self, boards: dict[str, Board], seed: int, least: int = 10, most: int = 40) -> None:
        self._boards = boards
        self._random = random.Random(seed)
        self._least = least
        self._most = most

    def step(self) -> int:
        """Change each board that is ready; return how many."""
        ready = [board for board in self._boards.values() if board.told >= READS]
        for board in ready:
            choices = ["update"]
            choices += ["close"] if len(board.jobs) > self._least else []
            choices += ["post"] if len(board.jobs) < self._most else []
            what = self._random.choice(choices)
            id = self._random.choice([job.id for job in board.listed()])
            if what == "post":
                board.post()
            elif what == "update":
                board.update(id)
            else:
                board.close(id)
        return len(ready)
