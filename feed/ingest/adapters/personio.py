"""Personio: one XML document holds the whole board, on a host of the company's own."""

from dataclasses import dataclass
from html import escape
from typing import Any
from xml.etree.ElementTree import Element  # nosec B405

from feed.ingest.adapter import Answer, Found, Malformed
from feed.ingest.board import SingleAnswer
from feed.ingest.body import xml_of
from feed.ingest.collect import Fields, collect
from feed.ingest.description import described
from feed.ingest.places import country_in, joined
from feed.ingest.record import Record
from feed.ingest.times import time_of
from feed.ingest.vocabulary import employment_type, seniority, workplace_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Personio(SingleAnswer):
    """Reads `{board}.jobs.personio.de`, in English; it refuses those who ask more often than every few seconds."""

    name: str = "personio"
    gap: float = 3.0
    accept: str = "application/xml, text/xml"

    def address(self, board: str) -> str:
        return f"https://{self.host(board)}.jobs.personio.de/xml?language=en"

    def found(self, board: str, answer: Answer) -> Found:
        root = xml_of(answer)
        if root.tag != "workzag-jobs":
            raise Malformed(f"{answer.where}: the XML's root must be workzag-jobs, and is {root.tag!r:.80}.")

        def posting(position: Record) -> Fields:
            return _posting(position, f"https://{self.host(board)}.jobs.personio.de/job/")

        positions = [_fields(position) for position in root.iterfind("position")]
        return collect(self.source(board), positions, posting, complete=True, company=board)


def _fields(position: Element) -> dict[str, Any]:
    """Return the element as a record, with the offices and the parts of the description as lists."""
    fields: dict[str, Any] = {child.tag: child.text for child in position}
    fields["offices"] = [office.text for office in position.iterfind("additionalOffices/office")]
    fields["parts"] = [
        {"name": part.findtext("name"), "value": part.findtext("value")}
        for part in position.iterfind("jobDescriptions/jobDescription")
    ]
    return fields


def _posting(position: Record, pages: str) -> Fields:
    name = position.text("id")
    offices = [office for office in (position.text("office"), *position.each("offices")) if office]
    kind = position.text("employmentType")
    department = position.text("department")
    return {
        "external_id": name,
        "title": position.text("name"),
        "company": position.text("subcompany"),
        "url": f"{pages}{name}" if name else None,
        "location": joined(offices),
        "country": country_in(joined(offices)),
        "workplace": workplace_of(offices),
        "employment_type": employment_type(position.text("schedule") if kind in (None, "permanent") else kind),
        "seniority": seniority(position.text("seniority")),
        "tags": [department] if department else [],
        "posted_at": time_of(position.at("createdAt")),
        **described("".join(_part(part) for part in position.records("parts"))),
    }


def _part(part: Record) -> str:
    return f"<h3>{escape(part.text('name') or '')}</h3>{part.html('value') or ''}"
