"""JSON-LD: what schema.org calls a JobPosting, in the scripts of a page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from selectolax.lexbor import LexborHTMLParser

from feed.ingest.adapter import Answer, Found, Malformed
from feed.ingest.board import SingleAnswer
from feed.ingest.body import parse_json, tree_text
from feed.ingest.collect import Fields, collect
from feed.ingest.description import described, plain
from feed.ingest.places import address, country, joined, only
from feed.ingest.record import Record, line
from feed.ingest.salary import Pay, salary
from feed.ingest.times import end_of, time_of
from feed.ingest.vocabulary import employment_type

_SCRIPT: Final = re.compile(r"<script\b|<!--", re.IGNORECASE)
_SCRIPT_END: Final = re.compile(r"</script\s*>", re.IGNORECASE)
_COMMENT_END: Final = re.compile("-->")


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLd(SingleAnswer):
    """Reads the postings that a page describes for search engines; a board is the page's URL."""

    name: str = "jsonld"
    rolling: bool = True
    accept: str = "text/html"

    def address(self, board: str) -> str:
        return self.page(board)

    def found(self, board: str, answer: Answer) -> Found:
        postings: list[Any] = []
        broken: ValueError | None = None
        for script in _scripts(tree_text(answer, otherwise="windows-1252")):
            try:
                postings += _postings(parse_json(_bare(script)))
            except ValueError as error:
                broken = error
        if broken is not None and not postings:
            raise Malformed(f"{answer.where}: the page's JSON-LD is not JSON ({broken}).") from broken

        def posting(job: Record) -> Fields:
            return _posting(job, answer.url)

        company = urlsplit(answer.url).hostname
        return collect(self.source(board), postings, posting, complete=False, company=company)


def _scripts(page: str) -> Iterator[str]:
    """Yield the text of each script of the type application/ld+json.

    Only scripts are parsed as HTML: what parsing a whole page costs grows with the square of its depth, and no thread
    runs meanwhile.
    """
    place = 0
    while begin := _SCRIPT.search(page, place):
        comment = begin[0] == "<!--"
        # The two hyphens that begin a comment may be those that end it.
        end = _COMMENT_END.search(page, begin.end() - 2) if comment else _SCRIPT_END.search(page, begin.end())
        if end is None:
            return
        place = end.end()
        if not comment:
            tree = LexborHTMLParser(page[begin.start() : place])
            yield from (script.text() for script in tree.css('script[type="application/ld+json"]'))


def _bare(script: str) -> str:
    """Return a script without the comment that hides it from old browsers."""
    bare = script.strip()
    for begin, end in (("<!--", "-->"), ("//<![CDATA[", "//]]>"), ("/*<![CDATA[*/", "/*]]>*/")):
        bare = bare.removeprefix(begin).removesuffix(end).strip()
    return bare


def _postings(data: Any) -> Iterator[dict[str, Any]]:
    """Yield each JobPosting in `data`, in arrays, in `@graph` and in other objects, in their order."""
    waiting = [data]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += reversed(one)
        elif isinstance(one, dict):
            kinds = one.get("@type")
            if "JobPosting" in (kinds if isinstance(kinds, list) else [kinds]):
                yield one
            else:
                waiting += reversed(one.values())


def _posting(job: Record, page: str) -> Fields:
    title = plain(job.text("title"))
    own = job.text("url")
    places = [Record({"address": one}) for place in job.records("jobLocation") for one in _each(place.at("address"))]
    remote = "TELECOMMUTE" in [line(one) for one in _each(job.at("jobLocationType"))]
    area = [name for one in job.records("applicantLocationRequirements") if (name := country(one.text("name")))]
    kinds = [line(one) for one in _each(job.at("employmentType"))]
    return {
        "external_id": job.text("identifier", "value")
        or job.text("identifier")
        or own
        or (title and f"{page}#{title}"),
        "title": title,
        "company": job.text("hiringOrganization", "name") or job.text("hiringOrganization"),
        "url": _absolute(page, own),
        "location": joined(_place(place) for place in places) or joined(area),
        "country": only(_country(place) for place in places) or only(area),
        "workplace": "remote" if remote else None,
        "employment_type": employment_type(next(filter(None, kinds), None)),
        "posted_at": time_of(job.at("datePosted")),
        "valid_through": end_of(job.at("validThrough")),
        **salary(_pay(one) for one in job.records("baseSalary")),
        **described(job.html("description")),
    }


def _absolute(page: str, own: str | None) -> str:
    """Return the posting's URL, which may be relative to that of its page."""
    try:
        return urljoin(page, own or "")
    except ValueError:
        return page


def _each(value: object) -> list[Any]:
    """Return `value` as a list, since JSON-LD writes one value with or without brackets."""
    return value if isinstance(value, list) else [value]


def _place(place: Record) -> str | None:
    if isinstance(place.at("address"), str):
        return place.text("address")
    return address(place.text("address", "addressLocality"), place.text("address", "addressRegion"), _country(place))


def _country(place: Record) -> str | None:
    return country(place.text("address", "addressCountry", "name") or place.text("address", "addressCountry"))


def _pay(given: Record) -> Pay:
    """Return a MonetaryAmount, whose value is a QuantitativeValue or a number."""
    value = given.at("value")
    if isinstance(value, dict):
        one = Record(value)
        low = one.at("minValue") if one.at("minValue") is not None else one.at("value")
        high = one.at("maxValue") if one.at("maxValue") is not None else one.at("value")
        return Pay(low, high, given.at("currency"), one.at("unitText") or given.at("unitText"))
    return Pay(value, value, given.at("currency"), given.at("unitText"))
