"""History: pages of the log for replay, aligned, encoded once, and read once for all streams that wait for them."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from feed.fanout.encoded_event import EncodedEvent
from feed.model.event import Event
from feed.settings.fanout import ReplaySettings


@dataclass(frozen=True, slots=True)
class LogState:
    """The log at one moment: the epoch in force, the newest position (`head`), and the last pruned position (`floor`)."""

    epoch: int
    head: int
    floor: int


class LogReader(Protocol):
    """What replay needs of a log. Every call raises DatabaseUnavailable while the log cannot be read."""

    async def state(self) -> LogState:
        """Read the state of the log now."""

    async def read(self, after: int, upto: int) -> list[Event]:
        """Return the events with after < position <= upto that are not pruned, in ascending order."""

    async def epoch_end(self, epoch: int) -> int | None:
        """Return the last position that `epoch` shares with its successors, or None for an epoch that never was."""

    async def position_before(self, instant: datetime) -> int:
        """Return the last position that was sequenced before `instant`."""


class Pruned(Exception):
    """Raised where the event after a position has left the log."""


@dataclass(frozen=True, slots=True)
class Page:
    """The encoded events with after < position <= upto, without a gap. `size` is the bytes that they take."""

    after: int
    upto: int
    events: list[EncodedEvent]
    size: int

    def beyond(self, position: int) -> list[EncodedEvent]:
        """Return the events that follow `position`. Raises Pruned where the next one has left the log."""
        first = position - self.after
        if first < 0:
            raise Pruned(position)
        return self.events[first:]


class History:
    """Pages by number: page n begins after position n * page_size. Use it as a context manager, which owns the reads."""

    def __init__(self, reader: LogReader, settings: ReplaySettings) -> None:
        self.reader = reader
        self._page_size = settings.page
        self._cache_bytes = settings.cache
        self._cached: OrderedDict[int, Page] = OrderedDict()
        self._bytes = 0
        self.hits = 0  # pages that were in memory, or were being read for another stream
        self.reads = 0  # pages that had to be read
        self._generation = 0
        self._loading: dict[int, asyncio.Future[Page]] = {}
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

    def page(self, position: int, epoch: int, head: int, generation: int) -> "asyncio.Future[Page]":
        """Return the page that holds the event after `position`, as a future that all who want the page share.

        The page ends at `head` at the latest, and belongs to one generation of the log: another one voids all pages. The
        future fails with Pruned or DatabaseUnavailable. Wait for it by callback: whoever awaits it and is cancelled would
        cancel it for all.
        """
        if generation != self._generation:
            self.clear()
            self._generation = generation
        number = position // self._page_size
        upto = min((number + 1) * self._page_size, head)
        cached = self._cached.get(number)
        if cached is None or cached.upto <= position:  # a page that ends below the head is good as far as it goes
            if number in self._loading:
                self.hits += 1
            else:
                self.reads += 1
                self._begin(number, upto, epoch)
            return self._loading[number]
        self.hits += 1
        self._cached.move_to_end(number)
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

    def _begin(self, number: int, upto: int, epoch: int) -> None:
        loading: asyncio.Future[Page] = asyncio.get_running_loop().create_future()
        loading.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # the failure is retrieved, even if every stream has left
        self._loading[number] = loading
        task = self._tasks.create_task(self._load(loading, number, upto, epoch), name=f"history page {number}")
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _load(self, loading: "asyncio.Future[Page]", number: int, upto: int, epoch: int) -> None:
        """Read a page, and set it or what went wrong as the result of `loading`."""
        try:
            page = await self._read(number, upto, epoch)
        except Exception as error:  # the streams that wait must learn of it, whatever it is
            if not loading.done():
                loading.set_exception(error)
        else:
            if not loading.done():
                self._keep(number, page)
                loading.set_result(page)
        finally:
            if self._loading.get(number) is loading:
                del self._loading[number]
            loading.cancel()

    async def _read(self, number: int, upto: int, epoch: int) -> Page:
        after = number * self._page_size
        async with self._reads:
            events = await self.reader.read(after, upto)
        if events:
            after = events[0].position - 1
        if not events or len(events) != upto - after or events[-1].position != upto:
            raise Pruned(upto)
        encoded = [EncodedEvent(epoch, event) for event in events]
        return Page(after, upto, encoded, sum(one.size for one in encoded))

    def _keep(self, number: int, page: Page) -> None:
        old = self._cached.pop(number, None)
        self._bytes += page.size - (old.size if old is not None else 0)
        self._cached[number] = page
        while self._bytes > self._cache_bytes and len(self._cached) > 1:
            self._bytes -= self._cached.popitem(last=False)[1].size
