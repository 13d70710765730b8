"""The stream report: what one process says of its open streams, as sums and one by one."""

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import zip_longest
from typing import Any, Self, TypeVar

import orjson

from feed.fanout.ending import Goodbye
from feed.fanout.hub import Hub
from feed.fanout.stream import Stream
from feed.fanout.streams import Streams

_SLICE = 500
"""Streams that are looked at in one turn of the event loop."""
_ENTRY_SLICE = 50
"""Entries that are made in one turn of the event loop."""
_NAME_LENGTH = 200
"""Characters of a key's name that are shown; the issuer of a token chooses it."""
FILTER_LENGTH = 200
"""Characters of a filter that another process is told."""

T = TypeVar("T")


class Sort(StrEnum):
    """Which streams come first: those with the largest lag, the oldest, those with the most bytes or events."""

    LAG = "lag"
    AGE = "age"
    BYTES = "bytes"
    EVENTS = "events"


@dataclass(frozen=True, slots=True)
class StreamEntry:
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
    """Whether live frames go straight to its socket; else it is served from the log at its own pace."""


@dataclass(frozen=True, slots=True)
class StreamReport:
    """The streams of one process: their sums, and some of them one by one."""

    head: int = 0
    streams: int = 0
    pushed: int = 0
    lag: int = 0
    """The largest of its streams."""
    events: int = 0
    """Events handed to subscribers since the process began; `bytes` likewise."""
    bytes: int = 0
    protocols: Mapping[str, int] = field(default_factory=dict)
    """Open streams by protocol."""
    entries: tuple[StreamEntry, ...] = ()

    def document(self, max_bytes: int) -> str:
        """Return the report as JSON for another process; of the entries, as many of the first as fit into `max_bytes`."""
        left = max_bytes - len(orjson.dumps(replace(self, entries=())))
        entries = []
        for entry in map(_with_short_filter, self.entries):
            left -= len(orjson.dumps(entry)) + len(",")
            if left < 0:
                break
            entries.append(entry)
        return orjson.dumps(replace(self, entries=tuple(entries))).decode()

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Return the report of a JSON document. What a process of another version says more is left out."""
        entries = tuple(StreamEntry(**_known(StreamEntry, entry)) for entry in document.get("entries", ()))
        return cls(**{**_known(cls, document), "entries": entries})


def _with_short_filter(entry: StreamEntry) -> StreamEntry:
    if len(entry.filter) <= FILTER_LENGTH:
        return entry
    return replace(entry, filter=f"{entry.filter[: FILTER_LENGTH - 1]}…")


def _known(kind: type[Any], document: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: document[one.name] for one in fields(kind) if one.name in document}


_STREAM_ORDER: dict[Sort, Callable[[Stream], float]] = {
    Sort.LAG: lambda stream: stream.lag,
    Sort.AGE: lambda stream: -stream.opened_at,
    Sort.BYTES: lambda stream: stream.bytes,
    Sort.EVENTS: lambda stream: stream.events,
}
_ENTRY_ORDER: dict[Sort, Callable[[StreamEntry], Any]] = {
    Sort.LAG: lambda entry: (-entry.lag, entry.since),
    Sort.AGE: lambda entry: (entry.since, entry.id),
    Sort.BYTES: lambda entry: (-entry.bytes, entry.since),
    Sort.EVENTS: lambda entry: (-entry.events, entry.since),
}


def first_of(entries: Iterable[tuple[T, StreamEntry]], sort: Sort, limit: int) -> list[tuple[T, StreamEntry]]:
    """Return the first `limit` entries in an order, each with what it came with."""
    order = _ENTRY_ORDER[sort]
    return heapq.nsmallest(limit, entries, key=lambda one: order(one[1]))


class StreamReporter:
    """Reports on the streams of this process, some in each turn of the event loop: live frames go in between."""

    def __init__(self, hub: Hub, streams: Streams) -> None:
        self._hub = hub
        self._streams = streams

    async def report(self, sorts: Collection[Sort], limit: int) -> StreamReport:
        """Return the sums over all streams, and the first `limit` streams of each order.

        The first of every order come before the second ones, and so on; what is first in several orders is listed once.
        """
        streams = list(self._streams)
        protocols: Counter[str] = Counter()
        pushed = lag = 0
        first: dict[Sort, list[Stream]] = {sort: [] for sort in sorts}
        for begin in range(0, len(streams), _SLICE):
            part = streams[begin : begin + _SLICE]
            protocols.update(stream.caller.protocol for stream in part)
            pushed += sum(stream.pushed for stream in part)
            lag = max(lag, *(stream.lag for stream in part))
            for sort in sorts:
                first[sort] = heapq.nlargest(limit, [*first[sort], *part], key=_STREAM_ORDER[sort])
                await asyncio.sleep(0)
        counters = self._hub.counters
        return StreamReport(
            head=self._hub.head, streams=len(streams), pushed=pushed, lag=lag,
            events=counters.deliveries + counters.pulled, bytes=counters.bytes + counters.pulled_bytes,
            protocols=dict(protocols), entries=await self._entries(first.values()),
        )  # fmt: skip

    def end(self, id: str) -> bool:
        """Say goodbye to the stream of this id; returns whether this process has one."""
        return self._streams.end_where(lambda stream: stream.id == id, Goodbye.KICKED) > 0

    async def _entries(self, first: Iterable[list[Stream]]) -> tuple[StreamEntry, ...]:
        ranked = {one.id: one for rank in zip_longest(*first) for one in rank if one is not None}
        entries = []
        for number, stream in enumerate(ranked.values(), 1):
            entries.append(self._entry(stream))
            if number % _ENTRY_SLICE == 0:
                await asyncio.sleep(0)
        return tuple(entries)

    def _entry(self, stream: Stream) -> StreamEntry:
        since = datetime.fromtimestamp(stream.opened_at, UTC).isoformat(timespec="milliseconds")
        caller, lag = stream.caller, stream.lag
        return StreamEntry(
            id=stream.id, key=_printable(caller.grant.name), address=caller.address, filter=stream.filters,
            protocol=caller.protocol, since=since.replace("+00:00", "Z"), position=self._hub.head - lag, lag=lag,
            events=stream.events, bytes=stream.bytes, pushed=stream.pushed,
        )  # fmt: skip


def _printable(name: str) -> str:
    """Return the beginning of a name as text that JSON can carry."""
    return name[:_NAME_LENGTH].encode(errors="replace").decode()
