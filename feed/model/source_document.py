"""A source as JSON: what `GET /v1/sources` and `feed source list --json` tell of it."""

from datetime import datetime
from typing import Any

from feed.model.source import Counts, Source


def source_document(one: Source) -> dict[str, Any]:
    """Return what is known of a source; times are RFC 3339 in UTC, null where something has not happened yet."""
    return {
        "name": one.name,
        "state": one.state,
        "host": one.host,
        "url": one.url,
        "company": one.company,
        "attribution": one.attribution,
        "syndicate": one.syndicate,
        "running": one.running,
        "added_at": _time(one.added_at),
        "paused_at": _time(one.paused_at),
        "last_try_at": _time(one.tried_at),
        "last_success_at": _time(one.succeeded_at),
        "next_try_at": None if one.paused_at is not None else _time(one.next_at),
        "open": one.open,
        "last_change": None if one.changed_at is None else {"at": _time(one.changed_at)} | _counts(one.last_change),
        "total": _counts(one.total),
        "failing": None if one.error is None else {"failures": one.failures, "error": one.error},
        "suspect": None if one.suspect is None else {"since": _time(one.suspect_at), "why": one.suspect},
        "accepted": one.accepted,
        "bad": one.bad,
        "faults": [
            {
                "external_id": row.external_id,
                "faults": [{"field": fault.field, "message": fault.message} for fault in row.faults],
            }
            for row in one.faults
        ],
    }


def sources_document(found: list[Source], at: datetime) -> dict[str, Any]:
    """Return the answer of `GET /v1/sources`: the sources as they were at the time `at`."""
    return {"at": _time(at), "sources": [source_document(one) for one in found]}


def _counts(counts: Counts) -> dict[str, int]:
    return {"posted": counts.posted, "updated": counts.updated, "closed": counts.closed}


def _time(instant: datetime | None) -> str | None:
    return None if instant is None else instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
