"""Curves: deliveries per CPU second against subscribers, and latency against load; kept as SVG."""

from pathlib import Path

from feed.errors import FeedError
from tests.bench import fanout, latency
from tests.bench.contenders import FASTAPI_UVICORN, FEED, H1, H2, NAIVE_HYPERCORN, NCHAN, SHARED, mode_name
from tests.bench.plot import draw
from tests.bench.section import Bench, Section

SUBSCRIBERS = (10, 100, 1_000, 10_000)
RATES = (5.0, 20.0, 50.0, 100.0, 200.0)
_LATENCY_SUBSCRIBERS = 200
_LATE = 1_000.0
"""Milliseconds from which on a server does not keep up: more load would only say so again."""
_SECONDS = 1.5
"""Of load for each point."""
_SLOW = 10_000
"""Deliveries per CPU second under which ten thousand subscribers would take minutes."""


async def section(bench: Bench) -> Section:
    """Both, and the files in the bench's folder of results."""
    page = Section(
        "curves",
        "Deliveries per CPU second against subscribers, and milliseconds to the last subscriber against load",
        {
            "who": "", "http": "", "subscribers": "subscribers", "deliveries_per_cpu_second": "per CPU second",
            "rate": "events/s", "p50": "p50", "p99": "p99",
        },
    )  # fmt: skip
    cost = await _cost(bench, page)
    late = await _late(bench, page)
    if not cost or not late:
        return page
    bench.results.mkdir(parents=True, exist_ok=True)
    draw(
        bench.results / "fanout.svg", "Deliveries per CPU second of the server", "subscribers",
        "deliveries per CPU second", cost, bench.made,
    )  # fmt: skip
    draw(
        bench.results / "latency.svg", f"Latency to the last of {_LATENCY_SUBSCRIBERS} subscribers, HTTP/1.1",
        "events a second", "milliseconds since before the write", late, bench.made,
    )  # fmt: skip
    page.notes.append(f"Drawn in {_shown(bench.results)}: fanout.svg and latency.svg.")
    return page


async def _cost(bench: Bench, page: Section) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for who, modes in ((FEED, (H1, H2, SHARED)), (NCHAN, (H1,)), (NAIVE_HYPERCORN, (H1,)), (FASTAPI_UVICORN, (H1,))):
        if not bench.wants(who.name):
            continue
        if who.absent:
            continue
        for mode in modes:
            dsn = await bench.dsn()
            async with who.start(dsn, bench.cores) as server:
                name = f"{who.name}, {mode_name(mode)}"
                for subscribers in SUBSCRIBERS[:2] if bench.quick else SUBSCRIBERS:
                    if lines.get(name, [(0, _SLOW)])[-1][1] < _SLOW * (subscribers >= 10_000):
                        break
                    bench.say(f"curves: {name}, {subscribers:,} subscribers")
                    try:
                        found = await fanout.measure(bench, who, server, dsn, mode, subscribers, _SECONDS)
                    except (TimeoutError, FeedError):
                        break
                    cost = found.deliveries_per_cpu_second or 0
                    lines.setdefault(name, []).append((subscribers, cost))
                    page.add(
                        who=who.name, http=mode_name(mode), subscribers=subscribers, deliveries_per_cpu_second=cost,
                        rate=found.rate, busy=found.busy, joined=found.joined,
                    )  # fmt: skip
    return lines


async def _late(bench: Bench, page: Section) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for who in (FEED, NCHAN, NAIVE_HYPERCORN):
        if not bench.wants(who.name):
            continue
        if who.absent:
            continue
        dsn = await bench.dsn()
        async with who.start(dsn, bench.cores) as server:
            for rate in RATES[1:3] if bench.quick else RATES:
                bench.say(f"curves: {who.name}, {rate:g} events a second")
                events = max(20, round(rate * (1 if bench.quick else 3)))
                try:
                    _, found = await latency.measure(bench, who, server, dsn, H1, _LATENCY_SUBSCRIBERS, rate, events)
                except (TimeoutError, FeedError):
                    break
                if found.last.p50 is None or found.last.p99 is None:
                    break
                lines.setdefault(f"{who.name}, p50", []).append((rate, found.last.p50))
                lines.setdefault(f"{who.name}, p99", []).append((rate, found.last.p99))
                page.add(
                    who=who.name, http=mode_name(H1), subscribers=_LATENCY_SUBSCRIBERS, rate=rate, p50=found.last.p50,
                    p99=found.last.p99,
                )  # fmt: skip
                if found.last.p50 > _LATE:
                    break
    return lines


def _shown(folder: Path) -> str:
    try:
        return str(folder.relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
