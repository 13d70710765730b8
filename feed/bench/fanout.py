"""Fan-out: how many deliveries a feed makes, of which none is missing and none comes twice, and at what cost."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from feed.bench.readers import Readers, reading
from feed.bench.spec import Http, Spec
from feed.bench.usage import cpu_seconds
from feed.bench.writer import Writer, marker, pace, writing
from feed.client.query import service_url

_PROBE = 20
"""Events written first, to know what one costs; connections, caches and plans are new to everybody then."""
_PROBE_RATE = 20.0
_PROBES = (0.8, 0.5, 0.5)
"""How long one measurement of what an event costs lasts, in seconds."""
_PROBE_PATIENCE = 30.0
_SETTLE = 0.2
"""Seconds of silence between the probe and what counts."""
_DELIVERIES = 150_000.0
"""Deliveries a second that leave readers and writers on one core at their ease."""
_FASTEST = 1_000.0
"""Events a second that one writer gets done, about."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to write: so many events, `rate` a second, or as many as keep the server's core `busy` for some seconds."""

    events: int = 200
    rate: float = 20.0
    busy: float | None = None
    """Wanted share of a core, for servers whose `pid` is known; `rate` and `events` follow from the probe."""
    seconds: float = 4.0
    patience: float = 10.0
    """Seconds to wait for what has not arrived."""


@dataclass(frozen=True, slots=True)
class Fanout:
    """What was found; everything per CPU second is of the server's process, None where that is not known."""

    http: str
    streams: int
    subscribers: int
    events: int
    rate: float
    deliveries: int
    missing: int
    twice: int
    ended: int
    seconds: float
    deliveries_per_second: float
    deliveries_per_cpu_second: float | None
    busy: float | None
    """Seconds of processor the server used, of the seconds it took."""
    reader_busy: float
    event_bytes: float
    joined: float
    """Events that came in one piece (a chunk, a DATA frame), on average: 1 where each is written by itself."""


def spec_of(url: str, run: str, subscribers: int, http: Http, streams: int, path: str = "/v1/jobs/stream") -> Spec:
    """Streams of a feed that wait for the postings of a run; raises Unusable for an address that is none."""
    address = service_url(url)
    tls = address.scheme == "https"
    return Spec(
        host=address.host,
        port=address.port or (443 if tls else 80),
        path=address.path.rstrip("/") + path,
        http=http,
        tls=tls,
        streams=streams,
        subscribers=subscribers,
        marker=marker(run),
    )


async def measure(
    url: str, subscribers: int, http: Http, streams: int, database_url: str | None, load: Load, pid: int | None,
    say: Callable[[str], None],
) -> Fanout:  # fmt: skip
    """Write postings while subscribers of a feed count them; raises FeedError where feed or database is not to be had."""
    async with writing(url, database_url) as writer:
        spec = spec_of(url, writer.run, subscribers, http, streams)
        say(f"opening {subscribers:,} streams")
        async with reading(spec) as readers:
            await readers.open()
            return await run(readers, spec, writer, load, pid, say)


async def calibrated(readers: Readers, writer: Writer, pid: int, busy: float, share: float = 1.0) -> tuple[float, int]:
    """Return the rate that keeps a server's core `busy`, and how many events finding it took."""
    rate, written = _PROBE_RATE, 0
    fastest = min(_FASTEST, _DELIVERIES / (readers.subscribers * share))
    for seconds in _PROBES:
        count = max(_PROBE, round(rate * seconds))
        before, began = cpu_seconds(pid), time.monotonic()
        await pace(writer, written, count, rate)
        written += count
        await readers.reach(written, _PROBE_PATIENCE, share)
        used = max(cpu_seconds(pid) - before, 0.01)
        # What a server does when nothing happens counts for less the more happens: come nearer in steps.
        rate = min(rate * min(busy / (used / (time.monotonic() - began)), 20.0), busy * count / used * 4, fastest)
    return rate, written


async def run(
    readers: Readers, spec: Spec, writer: Writer, load: Load, pid: int | None, say: Callable[[str], None]
) -> Fanout:
    """Measure with streams that are live already."""
    if load.busy is not None and pid is not None:
        rate, probe = await calibrated(readers, writer, pid, load.busy)
        load = replace(load, rate=rate, events=max(10, round(rate * load.seconds)))
    else:
        probe = min(_PROBE, load.events)
        await pace(writer, 0, probe, load.rate)
        await readers.reach(probe, load.patience)
    await asyncio.sleep(_SETTLE)

    first = await readers.report(probe)
    say(f"writing {load.events:,} events at {load.rate:,.0f} a second")
    before = 0.0 if pid is None else cpu_seconds(pid)
    began = time.monotonic()
    await pace(writer, probe, load.events, load.rate)
    await readers.reach(probe + load.events, load.patience)
    used = None if pid is None else cpu_seconds(pid) - before
    seen = await readers.report(probe + load.events)

    deliveries = seen.deliveries - first.deliveries
    seconds = max(seen.at, began + 1e-6) - began
    return Fanout(
        http=("h2c" if spec.http == "h2" and not spec.tls else spec.http),
        streams=spec.streams,
        subscribers=spec.subscribers,
        events=load.events,
        rate=round(load.rate, 1),
        deliveries=deliveries,
        missing=seen.missing,
        twice=seen.twice,
        ended=seen.ended,
        seconds=round(seconds, 3),
        deliveries_per_second=round(deliveries / seconds, 1),
        deliveries_per_cpu_second=None if not used else round(deliveries / used),
        busy=None if used is None else round(used / seconds, 3),
        reader_busy=round((seen.cpu - first.cpu) / seconds, 3),
        event_bytes=round((seen.size - first.size) / max(1, deliveries), 1),
        joined=round(deliveries / max(1, seen.pieces - first.pieces), 2),
    )
