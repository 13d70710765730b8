"""The libraries that only fetching boards needs: whether they are installed."""

from importlib.util import find_spec

_NEEDED = ("babel", "defusedxml", "feedparser", "protego", "selectolax")


def missing_extra() -> str | None:
    """Return what is missing and how to install it; None where boards can be fetched."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if not missing:
        return None
    return (
        f"fetching boards needs libraries that are not installed ({', '.join(missing)}): pip install 'jobfeed[ingest]'"
    )
