"""Remote OK: a JSON array of the newest remote postings of many companies, which begins with a legal notice."""

from dataclasses import dataclass, field

from feed.errors import ConfigurationError
from feed.ingest.adapter import Answer, Found, Malformed, Terms
from feed.ingest.board import SingleAnswer
from feed.ingest.body import json_of
from feed.ingest.collect import Fields, collect
from feed.ingest.description import described, plain
from feed.ingest.places import country_in
from feed.ingest.record import Record, kind_of, line
from feed.ingest.salary import Pay, salary
from feed.ingest.times import time_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteOk(SingleAnswer):
    """Reads `remoteok.com`; its one board is `all`."""

    name: str = "remoteok"
    rolling: bool = True
    terms: Terms = field(default_factory=lambda: Terms("Remote OK (https://remoteok.com)"))

    def address(self, board: str) -> str:
        if board != "all":
            raise ConfigurationError(f"{self.source(board)}: remoteok has one board: remoteok:all")
        return "https://remoteok.com/api"

    def found(self, board: str, answer: Answer) -> Found:
        found = json_of(answer)
        if not isinstance(found, list):
            raise Malformed(f"{answer.where}: the body must be a JSON array, and is {kind_of(found)}.")
        jobs = [job for job in found if not (isinstance(job, dict) and "legal" in job)]
        return collect(self.source(board), jobs, _posting, complete=False)


def _posting(job: Record) -> Fields:
    place = job.text("location")
    return {
        "external_id": job.text("id"),
        "title": plain(job.text("position")),
        "company": job.text("company"),
        "url": job.text("url"),
        "location": place,
        "country": country_in(place),
        "workplace": "remote",
        "tags": list(dict.fromkeys(filter(None, map(line, job.each("tags"))))),
        "posted_at": time_of(job.at("date")),
        # Its pages tell these amounts in dollars a year.
        **salary([Pay(job.at("salary_min"), job.at("salary_max"), "USD", "year")]),
        **described(job.html("description")),
    }
