"""Two real services on one database, as processes that can be killed, stopped and drained."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
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
    "FEED_RING_EVENTS": "400",
    "FEED_HISTORY_PAGE": "60",
    "FEED_HISTORY_CACHE": "200000",
    "FEED_SUBSCRIBER_BUFFER": "30000",
    "FEED_HEARTBEAT": "1",
    "FEED_RETRY_MIN": "0.05",
    "FEED_RETRY_MAX": "0.1",
    "FEED_RETRY_BUSY": "0.2",
    "FEED_DRAIN_WINDOW": "0.2",
    "FEED_DRAIN_DEADLINE": "3",
    "PYTHONUNBUFFERED": "1",
}
"""Short waits and small bounds, so that every path is walked in seconds."""

_SETTLE = 60
"""Seconds in which a service must start or stop."""


class ServiceProcess:
    """`feed serve`, started again and again; its log grows over all its lives."""

    def __init__(self, name: str, dsn: str, folder: Path, environment: Mapping[str, str] = ENVIRONMENT) -> None:
        self.name = name
        self.url: str | None = None
        self.log = folder / f"{name}.log"
        self._out = folder / f"{name}.out"
        self._dsn = dsn
        self._environment = environment
        self._process: Process | None = None

    async def start(self) -> None:
        """Start it and wait until it says where it listens."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("FEED_", "DATABASE_URL"))}
        with self.log.open("ab") as log, self._out.open("wb") as out:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "feed", "serve", "--port", "0", "--database-url", self._dsn,
                stdout=out, stderr=log, env=clean | dict(self._environment),
            )  # fmt: skip
        async with asyncio.timeout(_SETTLE):
            while (found := re.search(rb"http://[\d.:]+", self._out.read_bytes())) is None:
                if self._process.returncode is not None:
                    raise RuntimeError(f"service {self.name} ended with {self._process.returncode} at its start")
                await asyncio.sleep(0.02)
        self.url = found[0].decode()

    @property
    def died(self) -> int | None:
        """The exit code, of a service that ended by itself."""
        return None if self._process is None else self._process.returncode

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def end(self, number: signal.Signals) -> int:
        """End it and return its exit code."""
        self.url = None
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(number)
        try:
            async with asyncio.timeout(_SETTLE):
                return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def tail(self, size: int = 4000) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""
