"""Recruitee: one JSON document holds the whole board, on a host of the company's own."""

from dataclasses import dataclass

from feed.ingest.adapter import Answer, Found
from feed.ingest.board import SingleAnswer
from feed.ingest.collect import Fields, collect
from feed.ingest.description import described
from feed.ingest.places import address, country, joined, only
from feed.ingest.record import Record
from feed.ingest.salary import Pay, salary
from feed.ingest.times import time_of
from feed.ingest.vocabulary import employment_type


@dataclass(frozen=True, slots=True, kw_only=True)
class Recruitee(SingleAnswer):
    """Reads `{board}.recruitee.com`."""

    name: str = "recruitee"

    def address(self, board: str) -> str:
        return f"https://{self.host(board)}.recruitee.com/api/offers/"

    def found(self, board: str, answer: Answer) -> Found:
        offers = Record.of(answer).needed("offers", answer.where)
        return collect(self.source(board), offers, _posting, complete=True, company=board, of_one_company=True)


def _posting(offer: Record) -> Fields:
    places = offer.records("locations")
    countries = [country(place.text("country")) for place in places]
    department = offer.text("department")
    html = (offer.html("description") or "") + (offer.html("requirements") or "")
    return {
        "external_id": offer.text("id"),
        "title": offer.text("title"),
        "company": offer.text("company_name"),
        "url": offer.text("careers_url"),
        "location": joined(address(place.text("city"), at) for place, at in zip(places, countries, strict=True)),
        "country": only(countries),
        "workplace": _workplace(offer),
        "employment_type": employment_type(offer.text("employment_type_code")),
        "tags": [department] if department else [],
        "posted_at": time_of(offer.at("published_at")),
        "valid_through": time_of(offer.at("close_at")),
        **salary(
            Pay(one.at("min"), one.at("max"), one.at("currency"), one.at("period")) for one in offer.records("salary")
        ),
        **described(html),
    }


def _workplace(offer: Record) -> str | None:
    """Return the one workplace that is offered; hybrid wins, and a choice between the two others is none of ours."""
    if offer.flag("hybrid"):
        return "hybrid"
    if offer.flag("remote"):
        return None if offer.flag("on_site") else "remote"
    return "onsite" if offer.flag("on_site") else None
