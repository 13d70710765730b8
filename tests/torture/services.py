"""Real services on one database, as processes that can be killed, stopped, drained and replaced."""

import asyncio
import json
import os
import random
import re
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

ENVIRONMENT = {
    "FEED_SEQUENCER_INTERVAL": "0.002",
    "FEED_SEQUENCER_IDLE": "0.02",
    "FEED_SEQUENCER_BATCH": "200",
    "FEED_SEQUENCER_LEASE": "2",
    "FEED_LEADER_RETRY": "0.1",
    "FEED_TAIL_POLL": "0.5",
    "FEED_TAIL_TIMEOUT": "2",
    "FEED_TAIL_PAGE": "300",
    "FEED_RECONNECT_MAX": "0.5",
    "FEED_LOG_PARTITION": "2000",
    "FEED_HOUSEKEEPING": "1",
    "FEED_EXPIRY_INTERVAL": "0.5",
    "FEED_ATTACHED_COMPARE_EVERY": "2",
    "FEED_RING_EVENTS": "400",
    "FEED_HISTORY_PAGE": "60",
    "FEED_HISTORY_CACHE": "200000",
    "FEED_JOINED_BYTES": "500000",
    "FEED_SUBSCRIBER_BUFFER": "30000",
    "FEED_HEARTBEAT": "1",
    "FEED_RETRY_MIN": "0.05",
    "FEED_RETRY_MAX": "0.1",
    "FEED_RETRY_BUSY": "0.2",
    "FEED_DRAIN_WINDOW": "0.2",
    "FEED_DRAIN_DEADLINE": "3",
    "FEED_SEND_TIMEOUT": "3",
    "FEED_LOG_FORMAT": "json",
    "PYTHONUNBUFFERED": "1",
}
"""Short waits and small bounds, so that every path is walked in seconds."""

_SETTLE = 60
"""Seconds in which a service must start or stop."""


class ServiceProcess:
    """`feed serve`, started again and again; its log grows over all its lives."""

    def __init__(
        self, name: str, dsn: str, folder: Path, *flags: str, environment: Mapping[str, str] = ENVIRONMENT
    ) -> None:
        self.name = name
        self.url: str | None = None
        self.log = folder / f"{name}.log"
        self._out = folder / f"{name}.out"
        self._dsn = dsn
        self._flags = flags
        self._environment = environment
        self._process: Process | None = None
        self._starts = 0

    async def start(self) -> None:
        """Start it and wait until it says where it listens."""
        clean = {
            name: value
            for name, value in os.environ.items()
            if name == "FEED_FANOUT_WRITER" or not name.startswith(("FEED_", "DATABASE_URL"))
        }
        self._starts += 1
        out_path = self._out.with_suffix(f".{self._starts}")
        with self.log.open("ab") as log, out_path.open("wb") as out:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "feed", "serve", "--port", "0", "--database-url", self._dsn, *self._flags,
                stdout=out, stderr=log, start_new_session=True,
                # One that is killed leaves its temporary files: they go with the folder.
                env=clean | dict(self._environment) | {"TMPDIR": str(self.log.parent)},
            )  # fmt: skip
        async with asyncio.timeout(_SETTLE):
            while (found := re.search(rb"https?://[\d.:]+", out_path.read_bytes())) is None:
                if process.returncode is not None:
                    raise RuntimeError(f"service {self.name} ended with {process.returncode} at its start")
                await asyncio.sleep(0.02)
        out_path.unlink()
        self.url = found[0].decode()

    @property
    def died(self) -> int | None:
        """The exit code, of a service that ended by itself."""
        return None if self._process is None else self._process.returncode

    @property
    def pids(self) -> list[int]:
        """Its processes: itself, or a master and its workers."""
        return [] if self._process is None else [self._process.pid, *_workers(self._process.pid)]

    def send(self, number: signal.Signals) -> None:
        """Send a signal: SIGTERM to its first process, any other to all of them, as Ctrl-C or a dying machine would."""
        if self._process is not None and self._process.returncode is None:
            _send(self._process, number)

    async def end(self, number: signal.Signals) -> int:
        """End it and return its exit code."""
        self.url = None
        process, self._process = self._process, None
        return 0 if process is None else await _end(process, number)

    async def replace(self) -> int:
        """A rolling restart: start another, then let this one drain; returns its exit code."""
        process, before = self._process, self.url
        try:
            await self.start()
        except BaseException:
            if process is not None:
                await _end(process, signal.SIGKILL)
            raise
        assert process is not None and self.url != before
        return await _end(process, signal.SIGTERM)

    async def orphan(self) -> bool:
        """Kill its master alone; whether its workers then left by themselves."""
        self.url = None
        process, self._process = self._process, None
        assert process is not None
        workers = _workers(process.pid)
        process.kill()
        await process.wait()
        try:
            async with asyncio.timeout(_SETTLE / 2):
                while any(_alive(pid) for pid in workers):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            return False
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return True

    def kill_worker(self, rng: random.Random) -> bool:
        """Kill one of its workers; False where it has none now."""
        workers = [] if self._process is None else _workers(self._process.pid)
        if workers:
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
        return bool(workers)

    def tail(self, size: int = 4000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""

    def crashes(self) -> list[str]:
        """What its log says of faults of its own: entries with a traceback, lines that are no entries."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines() if self.log.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {"event": "no entry of a log", "exception": line}
            if "exception" in entry:
                found.append(f"{entry['event']}: {entry['exception']}")
        return found


async def _end(process: Process, number: signal.Signals) -> int:
    """Send a signal and wait; whatever happens, nothing of the service is left."""
    if process.returncode is None:
        _send(process, number)
    try:
        async with asyncio.timeout(_SETTLE):
            return await process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _send(process: Process, number: signal.Signals) -> None:
    if number is signal.SIGTERM:
        process.send_signal(number)
    else:
        os.killpg(process.pid, number)


def _workers(master: int) -> list[int]:
    with suppress(OSError):
        return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
    return []


def _alive(pid: int) -> bool:
    """Whether a process is there, and not merely unburied."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
