"""`Retry-After` in both of its forms (RFC 9110, section 10.2.3)."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_LONGEST = 7 * 86_400.0
"""Seconds that a server can make us wait at the most."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds after which the server wants to be asked again; None where it does not say so, or not readably.

    A date is compared with the answer's own `Date`, because the server's clock need not agree with ours.
    """
    given = headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return min(float(given[:12]), _LONGEST)
    then = _date(given)
    if then is None:
        return None
    now = _date(headers.get("date", "")) or datetime.now(UTC)
    return min(max(0.0, (then - now).total_seconds()), _LONGEST)


def _date(text: str) -> datetime | None:
    try:
        read = parsedate_to_datetime(text)
    except (ValueError, IndexError):
        return None
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)
