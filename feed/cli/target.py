"""Where `feed post` writes: a feed over HTTP, or its database."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import orjson
from pydantic import ValidationError

from feed.cli.client_options import DEFAULT_URL
from feed.client import FeedClient, Refused
from feed.client import Written as WrittenByFeed
from feed.database.jobs import JobStore, open_store
from feed.database.jobs import Written as WrittenToStore
from feed.errors import Fault, Invalid
from feed.model.filter import EVERYTHING
from feed.model.page import Mark, Page
from feed.model.posting import PostingIn, faults_of

_PAGE = 500
"""Postings in a page of the list; a server gives no more."""

Counts = WrittenByFeed | WrittenToStore
"""What a batch changed, in postings: created, updated, unchanged."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A posting ready to be written: where it stands in the input, its source and external id, and its JSON."""

    place: str
    key: tuple[str, str]
    json: bytes
    named: bool
    """Whether the record names the external id; otherwise it was made of the content."""
    record: bytes = b""
    """The record it was made of, as JSON, where it is kept for a report."""

    @property
    def size(self) -> int:
        """Its bytes in memory, roughly."""
        return len(self.json) + len(self.record)


class Target(Protocol):
    """What is written to; every call raises Unavailable or DatabaseUnavailable while it cannot be had."""

    async def write(self, batch: Sequence[Prepared]) -> Counts:
        """Write `batch`, all or nothing; raises Invalid or Refused with faults that name items by their index."""
        ...

    async def open_postings(self, source: str) -> dict[int, str | None]:
        """Return the external ids of the open postings of `source`, by the postings' ids."""
        ...

    async def close(self, job: int) -> None:
        """Close a posting; one that is closed, or is gone, stays as it is."""
        ...


class FeedTarget:
    """A feed, over HTTP."""

    def __init__(self, client: FeedClient) -> None:
        self._client = client

    async def write(self, batch: Sequence[Prepared]) -> Counts:
        """Send `batch` as NDJSON, in one request."""
        return await self._client.post(b"\n".join(prepared.json for prepared in batch))

    async def open_postings(self, source: str) -> dict[int, str | None]:
        """Read the whole list of open postings, page by page: it has no filter by source."""
        found: dict[int, str | None] = {}
        after: str | None = None
        while True:
            page = await self._client.jobs(limit=_PAGE, after=after)
            found |= {job["id"]: job["external_id"] for job in page.jobs if job["source"] == source}
            after = page.next
            if after is None:
                return found

    async def close(self, job: int) -> None:
        """Close a posting by a request of its own, which leaves the rest of the posting as it is."""
        try:
            await self._client.close(job)
        except Refused as error:
            if error.status != 404:
                raise


class StoreTarget:
    """The database of a feed."""

    def __init__(self, store: JobStore) -> None:
        self._store = store

    async def write(self, batch: Sequence[Prepared]) -> Counts:
        """Write `batch` in one transaction."""
        return await self._store.write(validated(prepared.json for prepared in batch))

    async def open_postings(self, source: str) -> dict[int, str | None]:
        """Read the whole list of open postings, page by page."""
        found: dict[int, str | None] = {}
        after: Mark | None = None
        while True:
            page = await self._store.list(EVERYTHING, Page(after=after, limit=_PAGE))
            jobs = [orjson.loads(job) for job in page.jobs]
            found |= {job["id"]: job["external_id"] for job in jobs if job["source"] == source}
            after = page.next
            if after is None:
                return found

    async def close(self, job: int) -> None:
        """Close a posting in a transaction of its own."""
        await self._store.close(job)


def validated(postings: Iterable[bytes]) -> list[PostingIn]:
    """Return postings out of their JSON; raises Invalid with every fault in them, as a server would."""
    good: list[PostingIn] = []
    faults: list[Fault] = []
    for index, text in enumerate(postings):
        try:
            good.append(PostingIn.model_validate(orjson.loads(text)))
        except ValidationError as error:
            faults += faults_of(error, index)
    if faults:
        raise Invalid(faults)
    return good


def faults_in(prepared: Prepared) -> Sequence[Fault]:
    """Return why a server would refuse a posting; nothing if it is good."""
    try:
        validated([prepared.json])
    except Invalid as error:
        return error.faults
    return ()


@asynccontextmanager
async def open_target(url: str | None, database_url: str | None, key: str | None) -> AsyncIterator[Target]:
    """Open the database at `database_url`, else the feed at `url`."""
    if database_url:
        async with open_store(database_url) as store:
            yield StoreTarget(store)
    else:
        async with FeedClient(url or DEFAULT_URL, key=key) as client:
            yield FeedTarget(client)
