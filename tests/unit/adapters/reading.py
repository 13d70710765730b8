"""Adapters as a test runs them: what they fetch is scripted, and nothing goes over a network."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from feed.ingest.adapter import Adapter, Answer, Found
from feed.ingest.adapters import adapter_of
from feed.model.posting import PostingIn

FIXTURES = Path(__file__).parents[2] / "boards" / "fixtures"
BOARDS = {
    "greenhouse": "kestrel", "lever": "paperplane", "lever-eu": "paperplane", "ashby": "quarry",
    "smartrecruiters": "BlueHarbor", "recruitee": "gruenwald", "personio": "nordlicht", "remotive": "all",
    "remoteok": "all", "rss": "https://meridian.example/feed", "jsonld": "https://fields.example/jobs/",
    "json": "https://quarry.example/api#/data/jobs",
}  # fmt: skip
"""A board for each adapter."""


def fixture(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def adapter(name: str) -> Adapter:
    return adapter_of(name, fixture("other.toml").decode() if name == "json" else None)


Respond = Callable[[httpx.URL], bytes]


@dataclass(frozen=True, slots=True)
class Asked:
    """What an adapter fetched, and how."""

    url: str
    accept: str
    seconds: float | None


def read(
    name: str, body: bytes | Respond, content_type: str = "application/json", asked: list[Asked] | None = None
) -> Found:
    """Read the board of `name`, where `body` is every answer, or makes it from the URL."""
    reader, board = adapter(name), BOARDS[name]

    async def fetch(url: str, *, accept: str = "application/json", seconds: float | None = None) -> Answer:
        if asked is not None:
            asked.append(Asked(url, accept, seconds))
        found = body(httpx.URL(url)) if callable(body) else body
        return Answer(url, found, content_type, httpx.Headers())

    return asyncio.run(reader.read(board, reader.address(board), fetch))


def given(posting: PostingIn) -> dict[str, object]:
    """Return what a posting holds beside its description."""
    return posting.model_dump(exclude_none=True, exclude_defaults=True, exclude={"description", "description_html"})
