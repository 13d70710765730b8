"""Frames: events and control messages as bytes of `text/event-stream` (WHATWG HTML, 9.2). Each ends with a blank line."""

import re
from datetime import UTC, datetime
from typing import Any

import orjson

from feed.model.event import Event, Kind

# JSON escapes CR and LF. These too end a line for readers that split text by Unicode's rules, so they are escaped.
_BREAKS = re.compile("[\x85\u2028\u2029]")
_DATA = b"\ndata: "
_KIND = {kind: b"\nevent: %b%b" % (kind.value.encode(), _DATA) for kind in Kind}


def encode(value: Any) -> bytes:
    """Return a value as JSON in UTF-8, on one line whatever characters a reader takes for the end of one."""
    data = orjson.dumps(value)
    if b"\xe2\x80\xa8" in data or b"\xe2\x80\xa9" in data or b"\xc2\x85" in data:
        text = data.decode()
        data = _BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", text).encode()
    return data


def document(event: Event, kind: Kind) -> dict[str, Any]:
    """Return the `data` of an event for subscribers that are told `kind`; only that of a backfill has the key `backfill`."""
    job = event.job
    data = {**job, "href": f"/v1/jobs/{job['id']}"}
    if event.is_backfill:
        data["backfill"] = True
    if kind is Kind.CLOSED:
        reason = "closed" if event.reason is None or event.is_backfill else event.reason
        data["reason"] = reason if event.kind is Kind.CLOSED else "left_filter"
    return data


def event_frame(epoch: int, event: Event, kind: Kind) -> bytes:
    """Return the frame of one event for subscribers that are told `kind`."""
    return b"id: %d.%d%b%b\n\n" % (epoch, event.position, _KIND[kind], encode(document(event, kind)))


def data_of(event_frame: bytes) -> dict[str, Any]:
    """Return the `data` of an event's frame."""
    data: dict[str, Any] = orjson.loads(event_frame[event_frame.index(_DATA) + len(_DATA) :])
    return data


def left_frame(event_frame: bytes) -> bytes:
    """Return the frame for those whose filter a posting left: as `event_frame`, but `closed`, and with the reason."""
    head, _, data = event_frame.partition(_DATA)
    cursor, _, _ = head.partition(b"\n")
    return b'%b\nevent: closed%b%b,"reason":"left_filter"}\n\n' % (cursor, _DATA, data.removesuffix(b"}\n\n"))


def opening(epoch: int, position: int, retry_ms: int) -> bytes:
    """Return the first frames of a stream: the time to wait before reconnecting, and the cursor. Browsers fire no event."""
    return b"retry: %d\n\nid: %d.%d\n\n" % (retry_ms, epoch, position)


def pin(epoch: int, position: int) -> bytes:
    """Return a frame that only moves the client's cursor: no event fires in a browser."""
    return b"id: %d.%d\n\n" % (epoch, position)


def synced(position: int, replayed: int) -> bytes:
    """Return the frame which says that replay has met the head, after `replayed` events."""
    return b'event: synced\ndata: {"position":%d,"replayed":%d}\n\n' % (position, replayed)


def heartbeat(epoch: int, position: int, at: datetime | None = None) -> bytes:
    """Return a heartbeat: nothing more happened up to `position`. `at` is the time now unless given."""
    instant = (at or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return b'id: %d.%d\nevent: heartbeat\ndata: {"position":%d,"at":"%b"}\n\n' % (
        epoch,
        position,
        position,
        instant.encode(),
    )


def reset(epoch: int, position: int, reason: str, snapshot: str) -> bytes:
    """Return the frame which says that the cursor is of no use: the client reads `snapshot`, and the stream goes on here."""
    data = encode({"reason": reason, "snapshot": snapshot})
    return b"id: %d.%d\nevent: reset\ndata: %b\n\n" % (epoch, position, data)


def goodbye(reason: str, retry_ms: int) -> bytes:
    """Return the last frame of a stream: the client is to come back after `retry_ms` milliseconds."""
    return b'retry: %d\nevent: goodbye\ndata: {"reason":"%b","retry_ms":%d}\n\n' % (retry_ms, reason.encode(), retry_ms)
