"""RSS and Atom: the newest postings of a site's feed, with little more than title, link and date."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import struct_time
from typing import Any, Final
from urllib.parse import urlsplit

import feedparser

from feed.ingest.adapter import Answer, Found, Malformed
from feed.ingest.board import SingleAnswer
from feed.ingest.body import refuse_entities, tree_text
from feed.ingest.collect import Fields, collect
from feed.ingest.description import described, plain
from feed.ingest.places import country_in
from feed.ingest.record import Record
from feed.ingest.vocabulary import employment_type

_ENDS: Final = ("</rss>", "</feed>", "</rdf:rdf>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rss(SingleAnswer):
    """Reads a feed in RSS or Atom; a board is its URL."""

    name: str = "rss"
    rolling: bool = True
    accept: str = "application/atom+xml, application/rss+xml, application/xml;q=0.9, text/xml;q=0.8"

    def address(self, board: str) -> str:
        return self.page(board)

    def found(self, board: str, answer: Answer) -> Found:
        text = tree_text(answer)
        refuse_entities(answer.where, text)
        # Bytes, because feedparser takes a text for a URL or the name of a file.
        feed = feedparser.parse(
            io.BytesIO(text.encode("utf-8", "replace")),
            response_headers={"content-type": "application/xml; charset=utf-8", "content-location": answer.url},
            sanitize_html=False,
        )
        if not feed.get("version"):
            begin = " ".join(text[:60].split())
            raise Malformed(f"{answer.where}: the body is no RSS or Atom feed; it begins with {begin!r}.")
        if feed.get("bozo") and not text.rstrip().lower().endswith(_ENDS):
            raise Malformed(f"{answer.where}: the feed ends in its middle ({feed.get('bozo_exception')}).")
        company = Record(feed.get("feed", {})).text("title") or urlsplit(answer.url).hostname
        return collect(self.source(board), feed.entries, _posting, complete=False, company=company)


def _posting(entry: Record) -> Fields:
    """Read an entry; `job_listing` is the namespace of a plug-in for WordPress that many sites have."""
    content = entry.records("content")
    tags = [tag.text("term") for tag in entry.records("tags")]
    title = entry.text("title")
    place = entry.text("job_listing_location")
    return {
        "external_id": entry.text("id") or entry.text("link"),
        "title": plain(title) if entry.text("title_detail", "type") == "text/html" else title,
        "company": entry.text("job_listing_company"),
        "url": entry.text("link"),
        "location": place,
        "country": country_in(place),
        "employment_type": employment_type(entry.text("job_listing_job_type")),
        "tags": list(dict.fromkeys(tag for tag in tags if tag)),
        "posted_at": _time(entry.fields, "published_parsed") or _time(entry.fields, "updated_parsed"),
        **described(content[0].html("value") if content else entry.html("summary")),
    }


def _time(entry: Mapping[str, Any], name: str) -> datetime | None:
    """Return a time that feedparser has read, which is in UTC."""
    found = entry.get(name)
    if not isinstance(found, struct_time):
        return None
    try:
        return datetime(*found[:6], tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
