"""Remotive: the newest remote postings of many companies. They may be shown with a link back, and not be passed on."""

from dataclasses import dataclass, field

from feed.ingest.adapter import Answer, Found, Terms
from feed.ingest.board import SingleAnswer
from feed.ingest.collect import Fields, collect
from feed.ingest.description import described, plain
from feed.ingest.places import country_in
from feed.ingest.record import Record, line
from feed.ingest.salary import labelled
from feed.ingest.times import time_of
from feed.ingest.vocabulary import employment_type


@dataclass(frozen=True, slots=True, kw_only=True)
class Remotive(SingleAnswer):
    """Reads `remotive.com`, at most four times a day; a board is `all`, or the name of a category."""

    name: str = "remotive"
    rolling: bool = True
    terms: Terms = field(
        default_factory=lambda: Terms("Remotive (https://remotive.com)", min_interval=6 * 3600, syndicate=False)
    )

    def address(self, board: str) -> str:
        category = "" if board == "all" else f"?category={self.slug(board)}"
        return f"https://remotive.com/api/remote-jobs{category}"

    def found(self, board: str, answer: Answer) -> Found:
        jobs = Record.of(answer).needed("jobs", answer.where)
        return collect(self.source(board), jobs, _posting, complete=False)


def _posting(job: Record) -> Fields:
    place = job.text("candidate_required_location")
    return {
        "external_id": job.text("id"),
        "title": plain(job.text("title")),
        "company": job.text("company_name"),
        "url": job.text("url"),
        "location": place,
        "country": country_in(place),
        "workplace": "remote",
        "employment_type": employment_type(job.text("job_type")),
        "tags": list(dict.fromkeys(filter(None, [job.text("category"), *map(line, job.each("tags"))]))),
        "posted_at": time_of(job.at("publication_date")),
        **labelled(job.at("salary")),
        **described(job.html("description")),
    }
