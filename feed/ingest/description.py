"""Descriptions of postings: the one place where a source's HTML becomes what readers get."""

from typing import Any, Final

_LONGEST: Final = 200_000
"""Characters of a description, markup included; the rest is cut off."""


def described(html: str | None) -> dict[str, Any]:
    """Return the fields of a posting that describe it, from the HTML that a source sends."""
    return {"description": html[:_LONGEST] if html else None}


def described_plainly(text: str | None) -> dict[str, Any]:
    """Return the same from a plain text."""
    return {"description": text[:_LONGEST] if text else None}
