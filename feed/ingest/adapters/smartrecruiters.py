"""SmartRecruiters: pages of JSON. It is off unless somebody switches it on, because its terms forbid harvesting."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx

from feed.ingest.adapter import Fetch, Found
from feed.ingest.board import Board
from feed.ingest.collect import Fields, collect
from feed.ingest.places import address, country
from feed.ingest.record import Record
from feed.ingest.times import time_of
from feed.ingest.vocabulary import employment_type, seniority

_PAGE: Final = 100
"""Postings that one request asks for, which is as many as it may."""
_PAGES: Final = 200
"""Pages of one board, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmartRecruiters(Board):
    """Reads `api.smartrecruiters.com`; a company that it does not know looks like one without postings."""

    name: str = "smartrecruiters"
    off: str | None = "its terms of use forbid the harvesting of postings"

    def address(self, board: str) -> str:
        return f"https://api.smartrecruiters.com/v1/companies/{self.slug(board)}/postings"

    async def read(self, board: str, url: str, fetch: Fetch) -> Found:
        """Follow the pages; what was found is complete only if it is as much as the last page said there is."""
        jobs: list[Any] = []
        total: int | None = None
        size = 0
        for _ in range(_PAGES):
            page = httpx.URL(url).copy_merge_params({"limit": _PAGE, "offset": len(jobs)})
            answer = await fetch(str(page))
            size = self.bounded(board, size + len(answer.body))
            body = await asyncio.to_thread(Record.of, answer)
            content = body.needed("content", answer.where)
            told = body.at("totalFound")
            total = told if isinstance(told, int) and not isinstance(told, bool) else None
            jobs += content
            if not content or total is None or len(jobs) >= total:
                break
        return await asyncio.to_thread(self._collected, board, jobs, total)

    def _collected(self, board: str, jobs: list[Any], total: int | None) -> Found:
        pages = f"https://jobs.smartrecruiters.com/{quote(board)}/"
        names = {Record(job).text("id") for job in jobs if isinstance(job, dict)}

        def posting(job: Record) -> Fields:
            return _posting(job, pages)

        return collect(
            self.source(board), jobs, posting, complete=len(names) == total, company=board, of_one_company=True
        )


def _posting(job: Record, pages: str) -> Fields:
    name = job.text("id")
    at = country(job.text("location", "country"))
    department = job.text("department", "label")
    return {
        "external_id": name,
        "title": job.text("name"),
        "company": job.text("company", "name"),
        "url": f"{pages}{quote(name)}" if name else None,
        "location": address(job.text("location", "city"), at),
        "country": at,
        "workplace": _workplace(job),
        "employment_type": employment_type(job.text("typeOfEmployment", "label")),
        "seniority": seniority(job.text("experienceLevel", "label")),
        "tags": [department] if department else [],
        "posted_at": time_of(job.at("releasedDate")),
    }


def _workplace(job: Record) -> str | None:
    if job.flag("location", "hybrid"):
        return "hybrid"
    return "remote" if job.flag("location", "remote") else None
