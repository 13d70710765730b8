"""Descriptions of postings: the one place where what a source sends becomes what readers get."""

from html import unescape
from typing import Any, Final

from feed.ingest.record import line
from feed.model.html import text_of

_LONGEST: Final = 200_000
"""Characters of a description, markup included; the rest is cut off."""


def described(html: str | None) -> dict[str, Any]:
    """Return the fields of a posting that describe it, from what a source sends as HTML.

    Some escape its markup, and some send a text without any, whose line breaks then mean something.
    """
    if html is not None:
        html = html[:_LONGEST]
    if html is not None and "<" not in html:
        html = unescape(html)
        if "<" not in html:
            return described_plainly(html)
    return {"description_html": html}


def described_plainly(text: str | None) -> dict[str, Any]:
    """Return the same from a plain text."""
    return {"description": text[:_LONGEST] if text else None}


def plain(html: str | None) -> str | None:
    """Return HTML, such as that of a title, as one line of text."""
    return line(text_of(html)) if html else None
