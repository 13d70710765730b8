"""Latency: from a posting's COMMIT (or POST) to the bytes in every subscriber's hands."""

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from feed.bench.fanout import spec_of
from feed.bench.readers import Readers, reading
from feed.bench.spec import Http, Seen, Spec
from feed.bench.writer import Writer, pace, writing

WARM_UP = 5
"""Events at the start that are not counted: connections, caches and plans are new to everybody."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How latencies are spread, in milliseconds; None where nothing arrived."""

    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


@dataclass(frozen=True, slots=True)
class Latency:
    """What was found. `first` and `last` look at the first and the last subscriber of each event."""

    http: str
    clock: str
    streams: int
    subscribers: int
    events: int
    rate: float
    deliveries: int
    missing: int
    twice: int
    ended: int
    all: Spread
    first: Spread
    last: Spread


async def measure(
    url: str, subscribers: int, events: int, rate: float, http: Http, streams: int, database_url: str | None,
    patience: float, say: Callable[[str], None],
) -> Latency:  # fmt: skip
    """Write postings while subscribers read; raises FeedError where the feed or the database is not to be had."""
    async with writing(url, database_url) as writer:
        spec = spec_of(url, writer.run, subscribers, http, streams)
        spec = dataclasses.replace(spec, task="time")
        say(f"opening {subscribers:,} streams")
        async with reading(spec) as readers:
            await readers.open()
            say(f"writing {events:,} events at {rate:g} a second")
            clock = "request" if database_url is None else "commit"
            return await run(readers, spec, writer, events, rate, patience, clock)


async def run(
    readers: Readers, spec: Spec, writer: Writer, events: int, rate: float, patience: float, clock: str
) -> Latency:
    """Measure on streams that are live; `clock` starts at the answer to the COMMIT, or when the request is sent."""
    total = events + WARM_UP
    answered = await pace(writer, 0, total, rate)
    await readers.reach(total, patience)
    seen = await readers.report(total)
    return evaluate(spec, seen, answered if clock == "commit" else {}, events, rate, clock)


def evaluate(spec: Spec, seen: Seen, answered: Mapping[int, float], events: int, rate: float, clock: str) -> Latency:
    """Return the latencies of every event after the warm-up; from `answered` where known, else from the stamp in it."""
    by_event: list[list[float]] = []
    for name, times in seen.times.items():
        event = int(name)
        if event < WARM_UP:
            continue
        late = answered[event] * 1e6 - seen.stamps[name] if event in answered else 0.0
        by_event.append([(took - late) / 1000 for took in times])
    return Latency(
        http="h2c" if spec.http == "h2" and not spec.tls else spec.http,
        clock=clock,
        streams=spec.streams,
        subscribers=spec.subscribers,
        events=events,
        rate=rate,
        deliveries=sum(len(times) for times in by_event),
        missing=seen.missing,
        twice=seen.twice,
        ended=seen.ended,
        all=spread([took for times in by_event for took in times]),
        first=spread([min(times) for times in by_event]),
        last=spread([max(times) for times in by_event]),
    )


def spread(times: Sequence[float]) -> Spread:
    """Return how `times` are spread."""
    if len(times) < 2:
        one = round(times[0], 3) if times else None
        return Spread(one, one, one, one)
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return Spread(*(round(cut, 3) for cut in (cuts[49], cuts[89], cuts[98], max(times))))
