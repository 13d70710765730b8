"""Lever: pages of a bare JSON array, on a host for the world and one for the European Union."""

import asyncio
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import httpx

from feed.ingest.adapter import Answer, Fetch, Found, Malformed
from feed.ingest.board import Board
from feed.ingest.body import json_of
from feed.ingest.collect import Fields, collect
from feed.ingest.description import described, described_plainly
from feed.ingest.places import country, country_in, joined
from feed.ingest.record import Record, kind_of, line
from feed.ingest.salary import Pay, salary
from feed.ingest.times import milliseconds
from feed.ingest.vocabulary import employment_type, workplace

_PAGE: Final = 500
"""Postings that one request asks for."""
_PAGES: Final = 200
"""Pages of one board, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever(Board):
    """Reads `api.lever.co` or `host_name`; a board is the site's name, and the two hosts have names of their own."""

    name: str = "lever"
    host_name: str = "api.lever.co"

    def address(self, board: str) -> str:
        return f"https://{self.host_name}/v0/postings/{self.slug(board)}?mode=json"

    async def read(self, board: str, url: str, fetch: Fetch) -> Found:
        """Follow the pages until one has nothing new, since a page may hold fewer postings than were asked for."""
        jobs: list[Any] = []
        seen: set[str] = set()
        size = 0
        for _ in range(_PAGES):
            page = httpx.URL(url).copy_merge_params({"skip": len(jobs), "limit": _PAGE})
            answer = await fetch(str(page))
            size = self.bounded(board, size + len(answer.body))
            found = await asyncio.to_thread(_array, answer)
            names = {name for job in found if isinstance(job, dict) and (name := line(job.get("id")))}
            if names <= seen:
                return await asyncio.to_thread(self._collected, board, jobs or found, complete=True)
            seen |= names
            jobs += found
        return await asyncio.to_thread(self._collected, board, jobs, complete=False)

    def _collected(self, board: str, jobs: list[Any], *, complete: bool) -> Found:
        return collect(self.source(board), jobs, _posting, complete=complete, company=board)


def _array(answer: Answer) -> list[Any]:
    found = json_of(answer)
    if not isinstance(found, list):
        raise Malformed(f"{answer.where}: the body must be a JSON array, and is {kind_of(found)}.")
    return found


def _posting(job: Record) -> Fields:
    place = job.text("categories", "location")
    others = [line(other) for other in job.each("categories", "allLocations")]
    pay = job.records("salaryRange")
    html = _html(job)
    return {
        "external_id": job.text("id"),
        "title": job.text("text"),
        "url": job.text("hostedUrl") or job.text("applyUrl"),
        "location": joined([place, *others]),
        "country": country(job.text("country")) or country_in(place),
        "workplace": workplace(job.text("workplaceType")),
        "employment_type": employment_type(job.text("categories", "commitment")),
        "tags": [word for name in ("department", "team") if (word := job.text("categories", name))],
        "posted_at": milliseconds(job.at("createdAt")),
        **salary(Pay(one.at("min"), one.at("max"), one.at("currency"), one.at("interval")) for one in pay),
        **(described(html) if html else described_plainly(job.html("descriptionPlain"))),
    }


def _html(job: Record) -> str | None:
    """Return the parts of the description, one below the other; None where it is only sent as plain text."""
    parts = [job.html("description")]
    for part in job.records("lists"):
        parts += [f"<h3>{escape(part.text('text') or '')}</h3><ul>{part.html('content') or ''}</ul>"]
    return "".join(part for part in (*parts, job.html("additional")) if part) or None
