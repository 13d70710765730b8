"""Ashby: one JSON document holds the whole board; it may take half a minute to come."""

from collections.abc import Iterator
from dataclasses import dataclass

from feed.ingest.adapter import Answer, Found
from feed.ingest.board import SingleAnswer
from feed.ingest.collect import Fields, collect
from feed.ingest.description import described
from feed.ingest.places import country, country_in, joined
from feed.ingest.record import Record
from feed.ingest.salary import Pay, salary
from feed.ingest.times import time_of
from feed.ingest.vocabulary import employment_type, workplace


@dataclass(frozen=True, slots=True, kw_only=True)
class Ashby(SingleAnswer):
    """Reads `api.ashbyhq.com`; a board is the name that stands in its URL."""

    name: str = "ashby"
    seconds: float | None = 60.0

    def address(self, board: str) -> str:
        return f"https://api.ashbyhq.com/posting-api/job-board/{self.slug(board)}?includeCompensation=true"

    def found(self, board: str, answer: Answer) -> Found:
        jobs = Record.of(answer).needed("jobs", answer.where)
        return collect(self.source(board), jobs, _posting, complete=True, company=board)


def _posting(job: Record) -> Fields | None:
    """Return None for what can only be found by its link."""
    if job.at("isListed") is False:
        return None
    place = job.text("location")
    return {
        "external_id": job.text("id"),
        "title": job.text("title"),
        "url": job.text("jobUrl") or job.text("applyUrl"),
        "location": joined([place, *(other.text("location") for other in job.records("secondaryLocations"))]),
        "country": country(job.text("address", "postalAddress", "addressCountry")) or country_in(place),
        "workplace": workplace(job.text("workplaceType")) or ("remote" if job.flag("isRemote") else None),
        "employment_type": employment_type(job.text("employmentType")),
        "tags": list(dict.fromkeys(word for name in ("department", "team") if (word := job.text(name)))),
        "posted_at": time_of(job.at("publishedAt")),
        **salary(_pay(job)),
        **described(job.html("descriptionHtml")),
    }


def _pay(job: Record) -> Iterator[Pay]:
    """Yield the salaries, and no equity or bonus, of all tiers."""
    for tier in job.records("compensation", "compensationTiers"):
        for part in tier.records("components"):
            if part.text("compensationType") == "Salary":
                yield Pay(part.at("minValue"), part.at("maxValue"), part.at("currencyCode"), part.at("interval"))
