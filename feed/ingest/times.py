"""Times of sources: RFC 3339 and its near relatives, and counts of milliseconds."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d)?)(?:[.,]\d+)? ?(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)


def time_of(value: object) -> datetime | None:
    """Return the time that a text such as `2026-10-30T08:00:00+01:00`, `2026-10-30 08:00:00 UTC` or `2026-10-30` says.

    Fractions of seconds are left out. A time without a zone is in UTC, and a date is its first moment. None where the
    text is no such time, or one before 1970 or after 2199.
    """
    found = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return None
    date, clock, zone = found.groups()
    zone = "+00:00" if zone is None or zone.upper() in ("Z", "UTC", "GMT") else zone
    try:
        return _likely(datetime.fromisoformat(f"{date}T{clock or '00:00'}{zone}"))
    except ValueError:
        return None


def end_of(value: object) -> datetime | None:
    """Return the time that a text says, and for a date the last second of that day."""
    found = time_of(value)
    whole_day = isinstance(value, str) and len(value.strip()) == len("2026-10-30")
    return found + timedelta(days=1, seconds=-1) if found is not None and whole_day else found


def milliseconds(value: object) -> datetime | None:
    """Return the time that is `value` milliseconds after the beginning of 1970."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return _likely(datetime.fromtimestamp(value // 1000, UTC))
    except (ValueError, OverflowError, OSError):
        return None


def _likely(found: datetime) -> datetime | None:
    try:
        return found if _EARLIEST <= found < _LATEST else None
    except OverflowError:  # the first and last hours that Python knows, in a zone that leads beyond them
        return None
