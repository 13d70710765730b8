"""Spans of time as tables on the terminal show them: short, and in one form everywhere."""

from datetime import datetime, timedelta


def instant(text: str) -> datetime:
    """Return the time that an answer of a server names in RFC 3339."""
    return datetime.fromisoformat(text)


def age(span: timedelta) -> str:
    """Return a span as `12s`, `3m05s`, `2h07m` or `4d11h`; one below zero as `0s`."""
    seconds = max(0, round(span.total_seconds()))
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}m{seconds:02d}s"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02d}h" if days else f"{hours}h{minutes:02d}m"
