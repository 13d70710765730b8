"""The roll: what one process says of its open streams, in all and one by one."""

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

import orjson

from feed.fanout.ending import Goodbye
from feed.fanout.hub import Hub
from feed.fanout.stream import Stream
from feed.fanout.streams import Streams

_SLICE = 1_000
"""Streams looked at in one turn of the event loop."""


class Sort(StrEnum):
    """What comes first: the largest lag, the oldest, the most bytes or events."""

    LAG = "lag"
    AGE = "age"
    BYTES = "bytes"
    EVENTS = "events"


@dataclass(frozen=True, slots=True)
class Entry:
    """One open stream."""

    id: str
    key: str = ""
    """Whose it is: `key:<id>`, `jwt:<sub>` or `open`."""
    address: str = ""
    filter: str = ""
    """As a query string; empty: everything."""
    protocol: str = ""
    since: str = ""
    """When it opened, RFC 3339."""
    position: int = 0
    lag: int = 0
    """Positions between it and the head."""
    events: int = 0
    bytes: int = 0
    pushed: bool = False
    """Live frames go straight to its socket; else it is served from the log at its own pace."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one process: its sums, and the streams that come first."""

    head: int = 0
    streams: int = 0
    pushed: int = 0
    lag: int = 0
    """The largest of its streams."""
    events: int = 0
    """Handed to subscribers since the process began; `bytes` as well."""
    bytes: int = 0
    protocols: Mapping[str, int] = field(default_factory=dict)
    entries: tuple[Entry, ...] = ()

    def document(self) -> str:
        """As JSON, for another process."""
        return orjson.dumps(self).decode()

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """From JSON. A process of another version may say more or less: what is unknown is left out."""
        entries = tuple(Entry(**_known(Entry, entry)) for entry in document.get("entries", ()))
        return cls(**{**_known(cls, document), "entries": entries})


def _known(kind: type[Any], document: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: document[one.name] for one in fields(kind) if one.name in document}


_FIRST: dict[Sort, Callable[[Stream], float]] = {
    Sort.LAG: lambda stream: stream.lag,
    Sort.AGE: lambda stream: -stream.opened_at,
    Sort.BYTES: lambda stream: stream.bytes,
    Sort.EVENTS: lambda stream: stream.events,
}
_FIRST_OF: dict[Sort, Callable[[Entry], Any]] = {
    Sort.LAG: lambda entry: (-entry.lag, entry.since),
    Sort.AGE: lambda entry: (entry.since, entry.id),
    Sort.BYTES: lambda entry: (-entry.bytes, entry.since),
    Sort.EVENTS: lambda entry: (-entry.events, entry.since),
}


def first(entries: Iterable[Entry], sort: Sort, limit: int) -> list[Entry]:
    """The entries that come first, whatever process they are of."""
    return heapq.nsmallest(limit, entries, key=_FIRST_OF[sort])


class Roll:
    """Calls the roll of a process's streams, a slice in each turn of the event loop: live frames go in between."""

    def __init__(self, hub: Hub, streams: Streams) -> None:
        self._hub = hub
        self._streams = streams

    async def call(self, sort: Sort, limit: int, only: str | None = None) -> Answer:
        """All streams as sums, and at most `limit` of them one by one; `only`: nothing but the stream of this id."""
        streams = [stream for stream in self._streams if only is None or stream.id == only]
        protocols: Counter[str] = Counter()
        pushed = lag = 0
        best: list[Stream] = []
        for begin in range(0, len(streams), _SLICE):
            part = streams[begin : begin + _SLICE]
            protocols.update(stream.caller.protocol for stream in part)
            pushed += sum(stream.pushed for stream in part)
            lag = max(lag, *(stream.lag for stream in part))
            best = heapq.nlargest(limit, [*best, *part], key=_FIRST[sort])
            await asyncio.sleep(0)
        done = self._hub.counters
        return Answer(
            head=self._hub.head, streams=len(streams), pushed=pushed, lag=lag, events=done.deliveries + done.pulled,
            bytes=done.bytes + done.pulled_bytes, protocols=dict(protocols), entries=tuple(map(self._entry, best)),
        )  # fmt: skip

    def end(self, id: str) -> bool:
        """Say goodbye to a stream of this process; whether there is one of this id."""
        return self._streams.end_where(lambda stream: stream.id == id, Goodbye.KICKED) > 0

    def _entry(self, stream: Stream) -> Entry:
        since = datetime.fromtimestamp(stream.opened_at, UTC).isoformat(timespec="milliseconds")
        caller, lag = stream.caller, stream.lag
        return Entry(
            id=stream.id, key=_printable(caller.grant.name), address=caller.address, filter=stream.filters,
            protocol=caller.protocol, since=since.replace("+00:00", "Z"), position=self._hub.head - lag, lag=lag,
            events=stream.events, bytes=stream.bytes, pushed=stream.pushed,
        )  # fmt: skip


def _printable(name: str) -> str:
    """A name that a token's issuer chose, as text that JSON can carry."""
    return name[:200].encode(errors="replace").decode()
