"""The reconnect storm: all subscribers come back at once with cursors some way back, and must be live again soon."""

import asyncio
import dataclasses
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from feed.bench.fanout import spec_of
from feed.bench.latency import Spread, evaluate, spread
from feed.bench.readers import reading
from feed.bench.spec import ANY, Http, Spec
from feed.bench.writer import Writer, new_run, pace, writing
from feed.client import FeedClient, UnexpectedAnswer

_LIVE_RATE = 10.0
"""Postings a second that the live subscribers are sent meanwhile."""
_NICE = 5
"""The storm's readers step back behind those of the bystanders, whose times must not be the client's."""
_CALM = 1.0
"""Seconds that the live subscribers are watched before the storm and after it."""


@dataclass(frozen=True, slots=True)
class Storm:
    """What was found. `seconds` is until the last subscriber was live again; `live` is how others fared meanwhile."""

    http: str
    streams: int
    subscribers: int
    back: int
    seconds: float
    synced: Spread
    """When subscribers were live again, in milliseconds."""
    deliveries: int
    missing: int
    """Events too few or too many between a cursor and the head that its subscriber met."""
    ended: int
    deliveries_per_second: float
    reader_busy: float
    bystanders: int
    live: Spread | None


async def head_of(url: str) -> tuple[str, int]:
    """Return the epoch and position of a feed's head; raises FeedError where none answers."""
    async with FeedClient(url) as client:
        cursor = (await client.jobs(limit=1)).last_event_id
    epoch, _, position = cursor.partition(".")
    if not position.isdigit():
        raise UnexpectedAnswer(f"{url} does not answer as a feed does: its cursor is {cursor!r}")
    return epoch, int(position)


@asynccontextmanager
async def _watching(spec: Spec, writer: Writer) -> AsyncIterator[Callable[[], Awaitable[Spread]]]:
    """Bystanders, live and written to for as long as this lasts; what is yielded ends that and tells their latencies."""
    answered: dict[int, float] = {}

    async def write() -> None:
        while True:
            answered.update(await pace(writer, len(answered), 1, _LIVE_RATE))

    async def told() -> Spread:
        await asyncio.sleep(_CALM)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        await readers.reach(len(answered), _CALM * 5)
        seen = await readers.report(len(answered))
        return evaluate(spec, seen, answered, len(answered), _LIVE_RATE, "commit").all

    async with reading(spec, processes=1) as readers:
        await readers.open()
        task = asyncio.create_task(write(), name="bystanders' writer")
        try:
            await asyncio.sleep(_CALM)
            yield told
        finally:
            task.cancel()
            await asyncio.wait([task])


def cursors(epoch: str, head: int, back: int, count: int) -> tuple[str, ...]:
    """Return cursors about `back` positions before the head, a tenth more or less, none before the log's first."""
    spans = (round(back * random.uniform(0.9, 1.1)) for _ in range(count))
    return tuple(f"{epoch}.{max(1, head - span)}" for span in spans)


async def measure(
    url: str, subscribers: int, back: int, http: Http, streams: int, bystanders: int, database_url: str | None,
    patience: float, say: Callable[[str], None],
) -> Storm:  # fmt: skip
    """Let subscribers come back to a feed at once; raises FeedError where it, or the database, is not to be had."""
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(writing(url, database_url)) if bystanders else None
        spec = spec_of(url, new_run(), subscribers, http, streams)
        return await run(url, spec, back, writer, bystanders, patience, say)


async def run(
    url: str, spec: Spec, back: int, writer: Writer | None, bystanders: int, patience: float, say: Callable[[str], None]
) -> Storm:
    """The storm itself: `spec` opened at once, while `writer` writes to as many `bystanders`, who have been live before."""
    async with AsyncExitStack() as stack:
        others = None
        if writer is not None:
            watched = dataclasses.replace(
                spec_of(url, writer.run, bystanders, spec.http, 1), task="time", cores=spec.cores
            )
            others = await stack.enter_async_context(_watching(watched, writer))
        epoch, head = await head_of(url)
        spec = dataclasses.replace(
            spec, task="replay", marker=ANY, headers=(("last-event-id", "{cursor}"),), patience=patience,
            cursors=cursors(epoch, head, back, spec.subscribers), pending=spec.subscribers, nice=_NICE,
        )  # fmt: skip
        readers = await stack.enter_async_context(reading(spec))
        say(f"{spec.subscribers:,} subscribers come back, about {back:,} events behind")
        began = time.monotonic()
        await readers.open()
        seen = await readers.report(0)
        live = await others() if others is not None else None
    took = [at - began for at in seen.lived]
    return Storm(
        http="h2c" if spec.http == "h2" and not spec.tls else spec.http,
        streams=spec.streams,
        subscribers=spec.subscribers,
        back=back,
        seconds=round(max(took), 3),
        synced=spread([one * 1000 for one in took]),
        deliveries=seen.behind,
        missing=seen.gaps,
        ended=seen.ended,
        deliveries_per_second=round(seen.behind / max(took), 1),
        reader_busy=round(seen.cpu / max(took), 3),
        bystanders=bystanders,
        live=live,
    )
