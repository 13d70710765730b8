"""History: pages of the log for replay, aligned, encoded once, and read once for all streams that wait for them.

There are pages of all events, and pages of what one filter may want, from which the database has left out the rest.
"""

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from feed.fanout.encoded_event import EncodedEvent
from feed.model.event import Event
from feed.model.filter import EVERYTHING, Filter
from feed.settings.fanout import ReplaySettings

_SPAN = 4
"""How many times the positions of other pages a filter's page has: it holds only what the filter may want of them."""
_DENSE = 2
"""A page is dense with an event in every so many positions."""
_SLICE = 50
"""Events encoded in one turn of the event loop, about half a millisecond, so that live events need not wait for more."""
_PAGE_BYTES = 500
"""Bytes of a page beside its events."""


@dataclass(frozen=True, slots=True)
class LogState:
    """The log at one moment: the epoch in force, the newest position (`head`), and the last pruned position (`floor`)."""

    epoch: int
    head: int
    floor: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a filter may want of some positions, and the log's head and floor at the same moment."""

    head: int
    floor: int
    events: list[Event]


class LogReader(Protocol):
    """What replay needs of a log. Every call raises DatabaseUnavailable while the log cannot be read."""

    async def state(self) -> LogState:
        """Read the state of the log now."""

    async def read(self, after: int, upto: int) -> list[Event]:
        """Return the events with after < position <= upto that are not pruned, in ascending order."""

    async def find(self, after: int, upto: int, wanted: Filter) -> Found:
        """Return all events with after < position <= upto that a filter wants, in ascending order, and maybe others."""

    async def epoch_end(self, epoch: int) -> int | None:
        """Return the last position that `epoch` shares with its successors, or None for an epoch that never was."""

    async def position_before(self, instant: datetime) -> int:
        """Return the last position that was sequenced before `instant`."""


class Pruned(Exception):
    """Raised where the event after a position has left the log."""


@dataclass(frozen=True, slots=True)
class Page:
    """Encoded events with after < position <= upto: all of them, or all that a filter may want. `size` is their bytes."""

    after: int
    upto: int
    events: list[EncodedEvent]
    size: int

    def beyond(self, position: int) -> list[EncodedEvent]:
        """Return the events that follow `position`. Raises Pruned where the next position has left the log."""
        if position < self.after:
            raise Pruned(position)
        return self.events[bisect_right(self.events, position, key=_position) :]

    @property
    def dense(self) -> bool:
        """Whether so many positions have an event that leaving out the others was not worth a page of its own."""
        return len(self.events) * _DENSE > self.upto - self.after


def _position(event: EncodedEvent) -> int:
    return event.position


_Key = tuple[int, Filter]
"""A page's number and its filter. Pages of a filter have `_SPAN` times the positions of those of EVERYTHING."""


class History:
    """Pages by number and filter: page n begins after position n times its positions.

    Use it as a context manager, which owns the reads.
    """

    def __init__(self, reader: LogReader, settings: ReplaySettings) -> None:
        self.reader = reader
        self._page_size = settings.page
        self._cache_bytes = settings.cache
        self._cached: OrderedDict[_Key, Page] = OrderedDict()
        self._bytes = 0
        self.hits = 0  # pages that were in memory, or were being read for another stream
        self.reads = 0  # pages that had to be read
        self._generation = 0
        self._loading: dict[_Key, asyncio.Future[Page]] = {}
        self._reads = asyncio.Semaphore(settings.reads)
        self._reading: set[asyncio.Task[None]] = set()
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
        for task in self._reading:
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    @property
    def cached_bytes(self) -> int:
        """Bytes that the pages in memory take."""
        return self._bytes

    def page(
        self, position: int, epoch: int, head: int, generation: int, wanted: Filter = EVERYTHING
    ) -> "asyncio.Future[Page]":
        """Return the page that holds what follows `position`, as a future that all who want the page share.

        The page ends at `head` at the latest, and belongs to one generation of the log: another one voids all pages. The
        future fails with Pruned or DatabaseUnavailable. Wait for it by callback: whoever awaits it and is cancelled would
        cancel it for all.
        """
        if generation != self._generation:
            self.clear()
            self._generation = generation
        size = self._page_size if wanted == EVERYTHING else self._page_size * _SPAN
        key = position // size, wanted
        cached = self._cached.get(key)
        if cached is None or cached.upto <= position:  # a page that ends below the head is good as far as it goes
            if key in self._loading:
                self.hits += 1
            else:
                self.reads += 1
                self._begin(key, key[0] * size, min((key[0] + 1) * size, head), epoch)
            return self._loading[key]
        self.hits += 1
        self._cached.move_to_end(key)
        ready: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        ready.set_result(cached)
        return ready

    def clear(self) -> None:
        """Forget all pages, and those that are being read."""
        self._cached.clear()
        self._bytes = 0
        for loading in self._loading.values():
            loading.cancel()
        self._loading.clear()

    def _begin(self, key: _Key, after: int, upto: int, epoch: int) -> None:
        loading: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        loading.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # the failure is retrieved, even if every stream has left
        self._loading[key] = loading
        task = self._tasks.create_task(self._load(loading, key, after, upto, epoch), name=f"history page {key[0]}")
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _load(self, loading: "asyncio.Future[Page]", key: _Key, after: int, upto: int, epoch: int) -> None:
        """Read a page, and set it or what went wrong as the result of `loading`."""
        try:
            page = await self._read(key[1], after, upto, epoch)
        except Exception as error:  # the streams that wait must learn of it, whatever it is
            if not loading.done():
                loading.set_exception(error)
        else:
            if not loading.done():
                self._keep(key, page)
                loading.set_result(page)
        finally:
            if self._loading.get(key) is loading:
                del self._loading[key]
            loading.cancel()

    async def _read(self, wanted: Filter, after: int, upto: int, epoch: int) -> Page:
        async with self._reads:
            if wanted == EVERYTHING:
                events = await self.reader.read(after, upto)
                if events:
                    after = events[0].position - 1
                if not events or len(events) != upto - after or events[-1].position != upto:
                    raise Pruned(upto)
            else:
                found = await self.reader.find(after, upto, wanted)
                after = max(after, found.floor)
                if not after < upto <= found.head:
                    raise Pruned(upto)
                events = [event for event in found.events if event.position > after]
        encoded: list[EncodedEvent] = []
        for begin in range(0, len(events), _SLICE):
            encoded += [EncodedEvent(epoch, event) for event in events[begin : begin + _SLICE]]
            await asyncio.sleep(0)
        return Page(after, upto, encoded, _PAGE_BYTES + sum(one.size for one in encoded))

    def _keep(self, key: _Key, page: Page) -> None:
        old = self._cached.pop(key, None)
        self._bytes += page.size - (old.size if old is not None else 0)
        self._cached[key] = page
        while self._bytes > self._cache_bytes and len(self._cached) > 1:
            self._bytes -= self._cached.popitem(last=False)[1].size
