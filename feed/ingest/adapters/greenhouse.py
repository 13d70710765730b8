"""Greenhouse: one JSON document holds the whole board, with descriptions as HTML whose markup is escaped."""

from dataclasses import dataclass
from decimal import Decimal

from feed.ingest.adapter import Answer, Found
from feed.ingest.board import SingleAnswer
from feed.ingest.collect import Fields, collect
from feed.ingest.description import described
from feed.ingest.places import country_in, joined, only, split
from feed.ingest.record import Record
from feed.ingest.salary import Pay, salary
from feed.ingest.times import time_of
from feed.ingest.vocabulary import workplace_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Greenhouse(SingleAnswer):
    """Reads `boards-api.greenhouse.io`; a board is the company's token."""

    name: str = "greenhouse"

    def address(self, board: str) -> str:
        return f"https://boards-api.greenhouse.io/v1/boards/{self.slug(board)}/jobs?content=true"

    def found(self, board: str, answer: Answer) -> Found:
        jobs = Record.of(answer).needed("jobs", answer.where)
        return collect(self.source(board), jobs, _posting, complete=True, company=board, of_one_company=True)


def _posting(job: Record) -> Fields:
    places = job.text("location", "name")
    return {
        "external_id": job.text("id"),
        "title": job.text("title"),
        "company": job.text("company_name"),
        "url": job.text("absolute_url"),
        "location": joined(split(places)),
        "country": country_in(places) or only(country_in(office.text("location")) for office in job.records("offices")),
        "workplace": workplace_of(split(places)),
        "tags": [name for department in job.records("departments") if (name := department.text("name"))],
        "posted_at": time_of(job.at("first_published")),
        **salary(_pay(one) for one in job.records("pay_input_ranges")),
        **described(job.html("content")),
    }


def _pay(given: Record) -> Pay:
    """Return a range whose amounts are in cents; the source does not tell its period."""
    low, high = given.number("min_cents"), given.number("max_cents")
    return Pay(low and low / Decimal(100), high and high / Decimal(100), given.at("currency_type"))
