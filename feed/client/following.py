"""The events of one followed stream, read by a task of their own.

httpx reads a response through several async generators, one inside the other. A loop that is left while they are suspended
has the event loop close them all at once, in any order, and on Python 3.11 they get in each other's way ("asynchronous
generator is already running"). Here a task runs them. Leaving cancels it where it waits for the socket, so that each of them
ends by an exception on its way out, which is how httpx closes a connection.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Self

from feed.client.errors import ClientError
from feed.client.event import StreamEvent

Found = StreamEvent | ClientError
"""What a stream gives: an event, or the error that ends it."""


class Reader:
    """A task that reads `found`, one step each time it is asked for one; it is one of `readers` until it has ended."""

    def __init__(self, found: AsyncGenerator[Found, None], readers: "set[Reader]") -> None:
        self._found = found
        self._readers = readers
        readers.add(self)
        self._item: Found | None = None
        self._asked = asyncio.Event()
        self._answered = asyncio.Event()
        """Set when there is an item, or when the task has ended."""
        self._leaving = False
        self.task = asyncio.create_task(self._run(), name="followed stream")
        self.task.add_done_callback(self._ended)

    async def next(self) -> Found:
        """Return what comes next; raises what the stream raised, and StopAsyncIteration after its end.

        A call that is cancelled loses nothing: the next one returns what it would have.
        """
        while self._item is None:
            if self.task.done():
                if not self.task.cancelled() and (error := self.task.exception()) is not None:
                    raise error
                raise StopAsyncIteration
            self._answered.clear()
            self._asked.set()
            await self._answered.wait()
        item, self._item = self._item, None
        return item

    def leave(self) -> None:
        """Have the task close its connection and end."""
        self.task.cancel()

    async def _run(self) -> None:
        async with aclosing(self._found) as found:
            async for item in found:
                await self._hand_over(item)

    async def _hand_over(self, item: Found) -> None:
        """Keep `item` until it is taken and another is asked for."""
        if self._leaving:
            return
        self._item = item
        self._asked.clear()
        self._answered.set()
        try:
            await self._asked.wait()
        except asyncio.CancelledError:
            # Here the generators are suspended and would only be dropped. Going on leads to where they wait for the
            # socket, and there the cancellation ends them.
            self._leaving = True
            self.task.cancel()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._readers.discard(self)
        self._answered.set()
        if not task.cancelled():
            task.exception()  # whoever asks next is told; if nobody does, nobody needs to be


class Following(AsyncIterator[StreamEvent]):
    """The events of one followed stream, to be gone through once.

    Its connection is closed when the iterator is dropped (as by `break`), by `aclose()`, and by the client's end.
    """

    def __init__(self, found: AsyncGenerator[Found, None], readers: set[Reader]) -> None:
        self._found = found
        self._readers = readers
        self._reader: Reader | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        if self._closed:
            raise StopAsyncIteration
        if self._reader is None:
            self._reader = Reader(self._found, self._readers)
        item = await self._reader.next()
        if isinstance(item, ClientError):
            await self.aclose()
            raise item
        return item

    async def aclose(self) -> None:
        """Close the connection, and return when it is closed."""
        self._closed = True
        if self._reader is not None:
            await end([self._reader])

    def __del__(self) -> None:
        # Possibly in the thread of a garbage collection, or after the end of the loop.
        reader = self._reader
        if reader is not None and not reader.task.done() and not (loop := reader.task.get_loop()).is_closed():
            loop.call_soon_threadsafe(reader.leave)


async def end(readers: list[Reader]) -> None:
    """Have `readers` close their connections, and wait until all of them have."""
    for reader in readers:
        reader.leave()
    if readers:
        await asyncio.wait([reader.task for reader in readers])
