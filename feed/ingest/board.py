"""What adapters have in common: what is usual among sources, and how the name of a board is checked."""

import asyncio
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlsplit

from feed.errors import ConfigurationError
from feed.ingest.adapter import Answer, Fetch, Found, Malformed, Terms

_LONGEST: Final = 150
"""Characters of a board's name, so that `name:board` fits the field `source` of a posting (200)."""
_PAGED_BYTES: Final = 128 * 1024 * 1024
"""Bytes of all pages of one board."""
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_SLUG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Board(ABC):
    """A kind of board that tells all its postings, asks nothing of those who read it, and is on."""

    name: str
    rolling: bool = False
    terms: Terms = field(default_factory=Terms)
    gap: float = 1.0
    off: str | None = None

    def bounded(self, board: str, size: int) -> int:
        """Return the `size` of the pages of a board so far, in bytes. Raises Malformed where that is too much."""
        if size > _PAGED_BYTES:
            raise Malformed(f"{self.source(board)}: its pages are larger than {_PAGED_BYTES >> 20} MiB together.")
        return size

    @abstractmethod
    def address(self, board: str) -> str:
        """Return the URL of the board's list. Raises ConfigurationError where `board` cannot be one."""

    def source(self, board: str) -> str:
        """Return the `source` of the board's postings."""
        return f"{self.name}:{board}"

    def slug(self, board: str) -> str:
        """Return the board's name as a path takes it. Raises ConfigurationError."""
        if len(board) > _LONGEST or not _SLUG.fullmatch(board):
            raise ConfigurationError(
                f"{self.source(board)}: a board of {self.name} is the word that stands for the company in its URL: "
                "letters, digits and - . _ only."
            )
        return quote(board)

    def host(self, board: str) -> str:
        """Return the board's name as the first part of a host's name. Raises ConfigurationError."""
        if not _HOST.fullmatch(board):
            raise ConfigurationError(
                f"{self.source(board)}: a board of {self.name} is the first part of its host's name: "
                "letters, digits and - only."
            )
        return board.lower()

    def page(self, board: str) -> str:
        """Return the URL that names the board. Raises ConfigurationError."""
        try:
            parts = urlsplit(board)
            good = parts.scheme in ("http", "https") and parts.hostname and not re.search(r"\s", board)
        except ValueError:
            good = False
        if not good or len(board) > _LONGEST:
            raise ConfigurationError(
                f"{self.source(board)}: a board of {self.name} is a URL, such as {self.name}:https://acme.example/jobs, "
                f"of at most {_LONGEST} characters."
            )
        return board


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleAnswer(Board):
    """A kind of board that is read with one request."""

    accept: str = "application/json"
    """The media types that a request asks for."""
    seconds: float | None = None
    """What one request may take; None: as usual."""

    async def read(self, board: str, url: str, fetch: Fetch) -> Found:
        """Return what the board at `url` holds now. Raises Malformed, FetchError and NotModified."""
        answer = await fetch(url, accept=self.accept, seconds=self.seconds)
        return await asyncio.to_thread(self.found, board, answer)  # a list may take seconds to read

    @abstractmethod
    def found(self, board: str, answer: Answer) -> Found:
        """Return what an answer holds, in a thread of its own. Raises Malformed."""
