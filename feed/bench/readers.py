"""All subscribers of a measurement, in as many processes as it takes, as one object."""

import asyncio
import dataclasses
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import orjson

from feed.bench.spec import Seen, Spec
from feed.client.errors import Unavailable

_A_PROCESS = 500
"""Subscribers that are worth a process of their own, where there is a core for it."""
_OUTPUT = 1024**3
"""The longest line, in bytes, that a process of readers may print."""
_START = 30.0
"""Seconds for a process of readers to come up, and to answer."""


class Readers:
    """Processes of readers, told the same and summed up."""

    def __init__(self, parts: list[tuple[Spec, Process]], authority: str) -> None:
        self._parts = parts
        self._authority = authority
        self.subscribers = sum(spec.subscribers for spec, _ in parts)

    async def open(self) -> None:
        """Open every stream at once; returns when all are live. Raises Unavailable where one cannot be had."""
        patience = max(spec.patience for spec, _ in self._parts) + _START
        await self._all("open", patience)

    async def reach(self, events: int, patience: float, share: float = 1.0) -> None:
        """Return when every subscriber has had `events` on average, times `share`, or after `patience` seconds."""
        lines = [f"reach {round(spec.subscribers * events * share)}" for spec, _ in self._parts]
        waiting = [
            asyncio.ensure_future(self._ask(process, line))
            for (_, process), line in zip(self._parts, lines, strict=True)
        ]
        _, late = await asyncio.wait(waiting, timeout=patience)
        if late:
            for _, process in self._parts:
                _tell(process, "report 0")
            for (_, process), one in zip(self._parts, waiting, strict=True):
                await one
                await self._line(process)

    async def report(self, events: int) -> Seen:
        """Return what all subscribers have seen so far, where each of them should have had `events`."""
        found = [Seen(**orjson.loads(line)) for line in await self._all(f"report {events}", _START * 4)]
        whole = found[0]
        for one in found[1:]:
            _add(whole, one)
        return whole

    async def _all(self, line: str, patience: float) -> list[str]:
        try:
            async with asyncio.timeout(patience):
                return list(await asyncio.gather(*(self._ask(process, line) for _, process in self._parts)))
        except TimeoutError:
            raise Unavailable(f"{self._authority}: the readers do not answer") from None

    async def _ask(self, process: Process, line: str) -> str:
        _tell(process, line)
        return await self._line(process)

    async def _line(self, process: Process) -> str:
        line = (await cast(asyncio.StreamReader, process.stdout).readline()).decode().strip()
        if not line or line.startswith("error"):
            raise Unavailable(f"{self._authority}: {line.removeprefix('error ') or 'the readers ended'}")
        return line


@asynccontextmanager
async def reading(spec: Spec, processes: int | None = None) -> AsyncIterator[Readers]:
    """Start processes for the subscribers of `spec`, without opening the streams; the processes are ended on leaving."""
    cores = len(spec.cores) or len(os.sched_getaffinity(0))
    wanted = processes or min(max(1, -(-spec.subscribers // _A_PROCESS)), max(1, cores))
    async with AsyncExitStack() as stack:
        parts = [(part, await stack.enter_async_context(_process(part))) for part in split(spec, wanted)]
        readers = Readers(parts, spec.authority)
        for _, process in parts:
            async with asyncio.timeout(_START):
                await readers._line(process)
        yield readers


def split(spec: Spec, processes: int) -> Iterable[Spec]:
    """Split `spec` into parts of about the same size, each with whole connections."""
    connections = -(-spec.subscribers // spec.streams)
    size = -(-connections // processes) * spec.streams
    for begin in range(0, spec.subscribers, size):
        count = min(size, spec.subscribers - begin)
        yield dataclasses.replace(
            spec,
            first=spec.first + begin,
            subscribers=count,
            cursors=spec.cursors[begin : begin + count],
            pending=max(1, spec.pending // processes),
        )


@asynccontextmanager
async def _process(spec: Spec) -> AsyncIterator[Process]:
    # The spec may hold thousands of cursors: more than an argument may be long.
    program = "feed.bench.returning" if spec.task == "return" else "feed.bench.reader"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", program, stdin=PIPE, stdout=PIPE, limit=_OUTPUT
    )
    try:
        _tell(process, spec.dumps())
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def _tell(process: Process, line: str) -> None:
    cast(asyncio.StreamWriter, process.stdin).write(line.encode() + b"\n")


def _add(whole: Seen, one: Seen) -> None:
    for name in (
        "live",
        "ended",
        "deliveries",
        "missing",
        "twice",
        "pieces",
        "size",
        "cpu",
        "behind",
        "gaps",
        "refused",
    ):
        setattr(whole, name, getattr(whole, name) + getattr(one, name))
    whole.at = max(whole.at, one.at)
    whole.error = whole.error or one.error
    whole.stamps |= one.stamps
    whole.lived += one.lived
    for event, times in one.times.items():
        whole.times.setdefault(event, []).extend(times)
