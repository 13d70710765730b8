"""What an adapter is, what it is given to fetch with, and what it hands back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from feed.errors import Fault, FeedError
from feed.model.posting import PostingIn

FetchFailure = Literal[
    "not_found",
    "gone",
    "refused",
    "rate_limited",
    "timeout",
    "too_large",
    "truncated",
    "private_address",
    "robots",
    "server",
    "network",
]
"""Why nothing usable came: one word, for metrics and for the decision what to do next."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A 200 and its whole body, with the content coding undone."""

    url: str
    """Where the body came from, after redirects."""
    body: bytes
    content_type: str
    """The header as sent, with its parameters; "" where there was none."""
    headers: Mapping[str, str]
    """The header fields; names are looked up without regard to case."""

    @property
    def where(self) -> str:
        """Return the URL for the text of an error: without its query, which may hold a secret."""
        return self.url.partition("?")[0]


class FetchError(FeedError):
    """A URL gave no usable answer; `retry_after` is the seconds that the server asked us to wait."""

    def __init__(
        self, text: str, kind: FetchFailure, status: int | None = None, retry_after: float | None = None
    ) -> None:
        self.kind = kind
        self.status = status
        self.retry_after = retry_after
        super().__init__(text)


class NotModified(Exception):
    """The board is as it was (a 304): raised by `Fetch`, and adapters let it pass to the runner."""


class Malformed(FeedError):
    """An answer is not what this source sends; the text says where and what."""


class Fetch(Protocol):
    """How adapters reach the network: politely, bounded, and never to a private address."""

    async def __call__(self, url: str, *, accept: str = "application/json", seconds: float | None = None) -> Answer:
        """Return the answer of a GET of `url`, which may take `seconds` (None: as the settings say).

        Raises FetchError, and NotModified where the server says that nothing changed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Terms:
    """What a source asks of those who use its postings."""

    attribution: str | None = None
    """What must be shown beside them, such as a name and a link; None: nothing."""
    min_interval: float = 900.0
    """Seconds between two fetches of one board, at least."""
    syndicate: bool = True
    """Whether the postings may be passed on to other boards."""


@dataclass(frozen=True, slots=True)
class BadPosting:
    """A posting that could not be read, and why, field by field."""

    external_id: str | None
    faults: list[Fault]


@dataclass(frozen=True, slots=True)
class Found:
    """What one fetch of a board found; `complete` says that what is not in it is not on the board."""

    postings: tuple[PostingIn, ...]
    complete: bool
    bad: tuple[BadPosting, ...] = ()
    company: str | None = None
    """The company's name as the board tells it."""


class Adapter(Protocol):
    """One kind of board: where its list is, and how it is read."""

    @property
    def name(self) -> str:
        """The word that names it in a source, such as `greenhouse`."""
        ...

    @property
    def rolling(self) -> bool:
        """Whether the list only holds the newest postings, so that absence from it says nothing."""
        ...

    @property
    def terms(self) -> Terms:
        """What the source asks of those who use its postings."""
        ...

    @property
    def gap(self) -> float:
        """Seconds between two requests to its host."""
        ...

    @property
    def off(self) -> str | None:
        """Why it is off unless somebody switches it on; None: it is on."""
        ...

    def address(self, board: str) -> str:
        """Return the URL of the board's list. Raises ConfigurationError where `board` cannot be one."""
        ...

    async def read(self, board: str, url: str, fetch: Fetch) -> Found:
        """Return what the board holds now; `url` is `address(board)` or what replaces it (a mirror, a test).

        Follows the source's paging. Raises Malformed, FetchError and NotModified.
        """
        ...
