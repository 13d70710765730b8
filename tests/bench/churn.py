"""Churn: ten thousand idle connections while others come and go; memory should stay flat and the log silent.

`python -m tests.bench.churn --minutes 15` prints a line every half minute and a verdict at the end.
"""

import asyncio
import os
import random
import time
from contextlib import AsyncExitStack
from typing import Annotated

import asyncpg
import typer
from rich.console import Console

from feed.bench.fanout import spec_of
from feed.bench.readers import reading
from feed.bench.usage import resident_bytes
from feed.bench.writer import new_run, pace, sql_writer
from tests.bench.contenders import H1, H2, SHARED
from tests.bench.machine import cores, pin, raise_files
from tests.bench.services import feed, postgres

SETTLE = 0.2
"""Of the time: what is held then is what later figures are compared with."""
GROWTH = 0.05
"""What may be more at the end, of what was held after settling."""


async def churn(minutes: float, connections: int, progress: Console) -> bool:
    """Run it; whether it stayed flat and silent."""
    raise_files()
    places = cores()
    pin(os.getpid(), places.load)
    async with postgres(places) as cluster, AsyncExitStack() as stack:
        admin = await asyncpg.connect(cluster.dsn())
        await admin.execute("CREATE DATABASE churn")
        await admin.close()
        dsn = cluster.dsn("churn")
        server = await stack.enter_async_context(feed(dsn, places))
        writer = await stack.enter_async_context(sql_writer(dsn, new_run(), close=False))
        for count, mode in ((connections * 6 // 10, H1), (connections * 4 // 10, H2)):
            idle = await stack.enter_async_context(reading(spec_of(server.url, new_run(), count, *mode)))
            await idle.open()
        assert server.log is not None
        quiet = len(server.log.read_bytes())
        began, end = time.monotonic(), time.monotonic() + minutes * 60
        held: list[tuple[float, int]] = []
        came, due = 0, began
        while time.monotonic() < end:
            mode = random.choice((H1, H2, SHARED))
            async with reading(spec_of(server.url, new_run(), 300, *mode)) as others:
                await others.open()
            came += 300  # on leaving they are killed: some with a FIN, some with what they had not read
            await pace(writer, came, 1, 10.0)
            held.append((time.monotonic() - began, resident_bytes(server.pid)))
            if time.monotonic() >= due:
                due += 30
                progress.print(
                    f"[{held[-1][0]:4.0f} s] {connections:,} idle, {came:,} came and went, {held[-1][1] / 2**20:.1f} MB"
                )
        said = server.log.read_bytes()[quiet:]
    settled = max(size for at, size in held if at <= minutes * 60 * SETTLE)
    last = max(size for at, size in held if at >= minutes * 60 * (1 - SETTLE))
    growth = last / settled - 1
    progress.print(
        f"{connections:,} idle connections and {came:,} that came and went in {minutes:g} minutes: at most "
        f"{settled / 2**20:.1f} MB in the first {minutes * SETTLE:g}, {last / 2**20:.1f} MB in the last ({growth:+.1%}); "
        f"{len(said.splitlines())} lines logged",
        soft_wrap=True,
    )
    if said:
        progress.print(said.decode(errors="replace")[:2000], markup=False)
    return growth <= GROWTH and not said


def main(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long.")] = 15,
    connections: Annotated[int, typer.Option(min=10, help="Idle connections, six in ten over HTTP/1.1.")] = 10_000,
) -> None:
    """Measure what comes and goes beside idle connections: memory, and the log."""
    if not asyncio.run(churn(minutes, connections, Console(highlight=False))):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
