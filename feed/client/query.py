"""What goes into a request: the service's address, filters as a query, an event id as a header."""

from collections.abc import Mapping, Sequence

import httpx

from feed.client.errors import Unusable

FilterValue = str | int | float
Filters = Mapping[str, FilterValue | Sequence[FilterValue]]
"""Filters by name: `{"location": ["berlin", "paris"], "salary_min": 60000}`; any value of a name will do."""


def service_url(text: str) -> httpx.URL:
    """Return the address of a service, or say what is wrong with it (`Unusable`)."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise Unusable(f"{text!r} is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise Unusable(f"{text!r} is not the address of a feed. Write it as http://HOST:PORT or https://HOST")
    if url.query or url.fragment:
        raise Unusable(f"{text!r} has a query or a fragment. Give the address of the service alone")
    return url


def query(filters: Filters | None, **others: object) -> tuple[tuple[str, str], ...]:
    """Return filters and other parameters as pairs; None is left out."""
    pairs: list[tuple[str, str]] = []
    for name, values in {**(filters or {}), **others}.items():
        several = values if isinstance(values, Sequence) and not isinstance(values, str) else [values]
        pairs += [(name, _text(value)) for value in several if value is not None]
    return tuple(pairs)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def event_id(text: str) -> str:
    """Return `text` if it can be sent back as `Last-Event-ID` (`Unusable` otherwise)."""
    if not (text.isascii() and text.isprintable()):
        raise Unusable(f"{text!r} cannot be an event id: it has characters that a header cannot carry")
    return text


def authorization(key: str) -> dict[str, str]:
    """Return the header that carries a key or a token (`Unusable`, without naming it, where it can be neither)."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise Unusable("this cannot be a key: a key consists of ASCII characters, without blanks")
    return {"Authorization": f"Bearer {key}"}
