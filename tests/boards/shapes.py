"""The lists of played boards, each in its source's shape, and where they are."""

import json
from collections.abc import Callable, Mapping
from html import escape
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.boards.script import Board, Job

MAPPING = """
[posting]
external_id = "ref"
title       = "what.title"
company     = "firm"
url         = "link"
location    = "where"
description_html = "text"
"""
"""The mapping for boards of the source `json`."""

PATHS = {
    "greenhouse": "jobs?content=true", "lever": "?mode=json", "lever-eu": "?mode=json", "ashby": "?includeCompensation=true",
    "smartrecruiters": "postings", "recruitee": "api/offers/", "personio": "xml?language=en", "remotive": "api",
    "remoteok": "api", "rss": "feed", "jsonld": "page", "json": "list",
}  # fmt: skip
NAMED_BY_URL = ("rss", "jsonld", "json")
"""Sources whose boards are called by the URL of their list."""
UNCONDITIONAL = ("lever", "lever-eu", "smartrecruiters")
"""Sources that send no ETag."""
XML = ("personio", "rss")

Query = Mapping[str, list[str]]


def url_of(board: Board) -> str:
    """Return where the board's list is."""
    path = PATHS[board.source]
    return f"{board.host}/{board.source}/{board.name}{'' if path.startswith('?') else '/'}{path}"


def source_of(board: Board) -> str:
    """Return what the feed calls the board."""
    return f"{board.source}:{url_of(board) if board.source in NAMED_BY_URL else board.name}"


def page_of(board: Board, job: Job) -> str:
    """Return where one posting is."""
    return f"{board.host}/{board.source}/{board.name}/jobs/{job.id}"


def list_of(board: Board, target: str) -> tuple[str, str]:
    """Return the media type and the text of what the board answers to a request for its list."""
    query = parse_qs(urlsplit(target).query)
    if board.source == "personio":
        return "text/xml", _personio(board)
    if board.source == "rss":
        return "application/rss+xml", _rss(board)
    if board.source == "jsonld":
        return "text/html", _jsonld(board)
    return "application/json", json.dumps(_JSON[board.source](board, query), ensure_ascii=False)


def is_last(board: Board, target: str) -> bool:
    """Return whether a reader who asks for `target`, as the last of its pages, knows the whole list."""
    query = parse_qs(urlsplit(target).query)
    held = len(board.listed())
    if board.source in ("lever", "lever-eu"):
        return int(query.get("skip", ["0"])[0]) >= held
    if board.source == "smartrecruiters":
        return int(query.get("offset", ["0"])[0]) + 100 >= held
    return True


def text_of(job: Job) -> str:
    return f"<p>Work in <b>{job.city}</b> &amp; elsewhere, revision {job.revision}.</p>"


def _greenhouse(board: Board, query: Query) -> Any:
    jobs = [
        {
            "id": job.id, "title": job.shown, "company_name": board.company, "location": {"name": job.city},
            "absolute_url": page_of(board, job), "first_published": job.posted_at.isoformat(),
            "updated_at": "2026-11-20T00:00:00Z", "content": escape(text_of(job)),
            "departments": [{"name": "Engineering"}], "offices": [],
        }
        for job in board.listed()
    ]  # fmt: skip
    return {"jobs": jobs, "meta": {"total": len(jobs)}}


def _lever(board: Board, query: Query) -> Any:
    first = int(query.get("skip", ["0"])[0])
    return [
        {
            "id": str(job.id), "text": job.shown, "categories": {"commitment": "Full-time", "location": job.city},
            "createdAt": int(job.posted_at.timestamp() * 1000), "description": text_of(job),
            "hostedUrl": page_of(board, job),
            "salaryRange": {"currency": "EUR", "interval": "per-year-salary", "min": 50000, "max": 60000 + job.revision},
        }
        for job in board.listed()[first : first + int(query.get("limit", ["100"])[0])]
    ]  # fmt: skip


def _ashby(board: Board, query: Query) -> Any:
    jobs = [
        {
            "id": str(job.id), "title": job.shown, "department": "Engineering", "employmentType": "FullTime",
            "location": job.city, "isListed": True, "publishedAt": job.posted_at.isoformat(), "jobUrl": page_of(board, job),
            "descriptionHtml": text_of(job), "workplaceType": "Hybrid",
        }
        for job in board.listed()
    ]  # fmt: skip
    return {"apiVersion": "1", "jobs": jobs}


def _smartrecruiters(board: Board, query: Query) -> Any:
    first, limit = int(query.get("offset", ["0"])[0]), min(100, int(query.get("limit", ["10"])[0]))
    content = [
        {
            "id": str(job.id), "name": job.shown, "releasedDate": job.posted_at.isoformat(),
            "company": {"name": board.company}, "location": {"city": job.city.split(",")[0], "country": "de"},
        }
        for job in board.listed()[first : first + limit]
    ]  # fmt: skip
    return {"offset": first, "limit": limit, "totalFound": len(board.listed()), "content": content}


def _recruitee(board: Board, query: Query) -> Any:
    offers = [
        {
            "id": job.id, "title": job.shown, "company_name": board.company, "department": "Engineering",
            "locations": [dict(zip(("city", "country"), job.city.split(", "), strict=True))], "on_site": True,
            "employment_type_code": "fulltime_permanent", "description": text_of(job), "careers_url": page_of(board, job),
            "salary": {"min": "50000", "max": "60000", "period": "year", "currency": "EUR"},
            "published_at": f"{job.posted_at:%Y-%m-%d %H:%M:%S} UTC",
        }
        for job in board.listed()
    ]  # fmt: skip
    return {"offers": offers}


def _remotive(board: Board, query: Query) -> Any:
    jobs = [
        {
            "id": job.id, "title": job.shown, "company_name": board.company, "url": page_of(board, job),
            "category": "Design", "publication_date": f"{job.posted_at:%Y-%m-%dT%H:%M:%S}",
            "candidate_required_location": job.city, "job_type": "full_time",
            "salary": "EUR 50,000 - 60,000 per year", "description": text_of(job),
        }
        for job in board.listed()
    ]  # fmt: skip
    return {"0-legal-notice": "Link back.", "job-count": len(jobs), "jobs": jobs}


def _remoteok(board: Board, query: Query) -> Any:
    jobs = [
        {
            "id": str(job.id), "position": job.shown, "company": board.company, "url": page_of(board, job),
            "date": job.posted_at.isoformat(), "location": job.city, "salary_min": 0, "salary_max": 0,
            "description": text_of(job), "tags": ["remote"],
        }
        for job in board.listed()
    ]  # fmt: skip
    return [{"legal": "Link back."}, *jobs]


def _mapped(board: Board, query: Query) -> Any:
    records = [
        {
            "ref": job.id, "what": {"title": job.shown}, "firm": board.company, "link": page_of(board, job),
            "where": job.city, "text": text_of(job),
        }
        for job in board.listed()
    ]  # fmt: skip
    return {"records": records}


def _personio(board: Board) -> str:
    positions = "".join(
        f"<position><id>{job.id}</id><subcompany>{escape(board.company)}</subcompany><office>{job.city}</office>"
        f"<name>{escape(job.shown)}</name><employmentType>permanent</employmentType><schedule>full-time</schedule>"
        f"<createdAt>{job.posted_at.isoformat()}</createdAt><jobDescriptions><jobDescription><name>Work</name>"
        f"<value><![CDATA[{text_of(job)}]]></value></jobDescription></jobDescriptions></position>"
        for job in board.listed()
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<workzag-jobs>{positions}</workzag-jobs>'


def _rss(board: Board) -> str:
    items = "".join(
        f"<item><title>{escape(job.shown)}</title><link>{page_of(board, job)}</link><guid>{page_of(board, job)}</guid>"
        f"<pubDate>{job.posted_at:%a, %d %b %Y %H:%M:%S} +0000</pubDate>"
        f"<description>{escape(text_of(job))}</description></item>"
        for job in board.listed()
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<rss version="2.0"><channel><title>{escape(board.company)}</title>'
        f"<link>{board.host}</link>{items}</channel></rss>"
    )


def _jsonld(board: Board) -> str:
    graph = [
        {
            "@type": "JobPosting", "title": job.shown, "identifier": {"value": str(job.id)}, "url": page_of(board, job),
            "datePosted": f"{job.posted_at:%Y-%m-%d}", "hiringOrganization": {"name": board.company},
            "jobLocation": {"address": {"addressLocality": job.city.split(",")[0], "addressCountry": "DE"}},
            "description": text_of(job),
        }
        for job in board.listed()
    ]  # fmt: skip
    script = json.dumps({"@context": "https://schema.org", "@graph": graph}, ensure_ascii=False).replace("</", "<\\/")
    return f'<!doctype html><title>Jobs</title><script type="application/ld+json">{script}</script>'


_JSON: dict[str, Callable[[Board, Query], Any]] = {
    "greenhouse": _greenhouse, "lever": _lever, "lever-eu": _lever, "ashby": _ashby, "smartrecruiters": _smartrecruiters,
    "recruitee": _recruitee, "remotive": _remotive, "remoteok": _remoteok, "json": _mapped,
}  # fmt: skip
