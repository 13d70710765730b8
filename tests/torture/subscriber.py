"""The subscribers: they read, leave, are cut off, and come back with their last id, to whichever service is up."""

import asyncio
import random
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from tests.h2client import insecure
from tests.torture.ledger import OWN, digest

Body = dict[str, Any]
_CONTEXTS: dict[bool, ssl.SSLContext] = {http2: insecure() for http2 in (False, True)}
"""Made once: httpx would load a bundle of certificates for each client."""
_SILENCE = 6.0
"""Seconds without a byte (heartbeats come every second) after which a subscriber gives a connection up."""


@dataclass(frozen=True, slots=True)
class Seen:
    """An event as it arrived."""

    kind: str
    reason: str | None
    job: int
    version: int
    digest: int
    key: str | None
    """The key of its row, of a posting of the attached table."""


@dataclass(slots=True)
class Record:
    """What arrived at any unfiltered subscriber, by position, and what was wrong at any subscriber."""

    events: dict[int, Seen] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def fault(self, what: str, text: str) -> None:
        self.counts[what] += 1
        if len(self.faults) < 50:
            self.faults.append(f"{what}: {text}")


class Subscriber:
    """Follows the stream from the beginning; `position` is that of the last id it was sent.

    One that `visits` comes at any time, begins at the head, and is somebody new after a while.
    """

    def __init__(
        self, name: str, urls: Callable[[], list[str]], record: Record, seed: int, *, http2: bool, slow: bool = False,
        visits: bool = False, query: dict[str, Any] | None = None, wanted: Callable[[Body], bool] | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.position = 0
        self.last_id: str | None = None
        self.connections = 0
        self.told: list[tuple[int, str, str | None, int, int]] = []
        """Filtered only: position, kind, reason, job, version of every event."""
        self.open: dict[int, int] = {}
        """Filtered only: the open postings, as a list on a screen would hold them: job, version."""
        self.wanted = wanted
        self._urls = urls
        self._record = record
        self._rng = random.Random(seed)
        self._http2 = http2
        self._slow = slow
        self._visits = visits
        self._query = query or {}
        self._calm = False

    def settle(self) -> None:
        """Stay connected from now on, and read as fast as it comes."""
        self._calm = True

    async def run(self) -> None:
        """Read for ever."""
        rng, counts = self._rng, self._record.counts
        while True:
            urls = self._urls()
            if urls:
                if self._visits and not self._calm and rng.random() < 0.3:
                    self.last_id = None
                    counts["visits"] += 1
                self.connections += 1
                try:
                    async with asyncio.timeout(None) as limit:
                        await self._connection(rng.choice(urls), limit)
                    counts["ended"] += 1
                except TimeoutError:
                    counts["left"] += 1
                except httpx.TransportError as error:
                    counts[f"cut ({type(error).__name__})"] += 1
            await asyncio.sleep(rng.uniform(0, 0.3))

    async def _connection(self, url: str, limit: asyncio.Timeout) -> None:
        query, headers = dict(self._query), {}
        if self.last_id is None:
            query["from"] = "now" if self._visits else "earliest"
        elif self._rng.random() < 0.5:
            query["last_event_id"] = self.last_id
        else:
            headers["last-event-id"] = self.last_id
        timeout = httpx.Timeout(5, read=_SILENCE)
        async with (
            httpx.AsyncClient(
                http1=not self._http2,
                http2=self._http2,
                verify=_CONTEXTS[self._http2],
                timeout=timeout,
                trust_env=False,
            ) as client,
            client.stream("GET", f"{url}/v1/jobs/stream", params=query, headers=headers) as response,
        ):
            if response.status_code != 200:
                self._record.fault("refused", f"{self.name}: {response.status_code} {(await response.aread())[:500]!r}")
                await asyncio.sleep(1)
                return
            # Not before: httpcore leaves the socket open where a handshake is cancelled.
            life = 60 if self._calm else self._rng.choice((0.3, 2, self._rng.uniform(0, 8)))
            limit.reschedule(asyncio.get_running_loop().time() + life)
            counts = self._record.counts
            counts[f"{response.http_version}{' over TLS' if url.startswith('https') else ''}"] += 1
            rest = b""
            async for chunk in response.aiter_raw():
                *blocks, rest = (rest + chunk).split(b"\n\n")  # a frame cut short at the end never counts
                for block in blocks:
                    self._frame(block)
                if self._slow and not self._calm:
                    await asyncio.sleep(self._rng.choice((0, 0, 0, 0, 0.2)))

    def _frame(self, block: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
        kind = fields.get(b"event", b"").decode()
        position = None
        if b"id" in fields:
            position = int(fields[b"id"].split(b".")[1])
        if kind in ("posted", "updated", "closed"):
            assert position is not None
            data = orjson.loads(fields[b"data"])
            if self.wanted is None:
                self._check(position, kind, data)
            else:
                self._collect(position, kind, data)
        elif kind == "reset":
            self._record.fault("reset", f"{self.name} at {self.position}: {block!r}")
        elif position is not None and self.last_id is None and self._visits:
            pass  # where a visitor begins
        elif position is not None and (position < self.position or (self.wanted is None and position != self.position)):
            self._record.fault("cursor", f"{self.name} is at {self.position}, was sent {block!r}")
        elif kind == "goodbye":
            self._record.counts["goodbyes"] += 1
        if position is not None:
            self.position = position
            self.last_id = fields[b"id"].decode()

    def _check(self, position: int, kind: str, data: Body) -> None:
        """Unfiltered: the next position, and the same event as everybody else was sent."""
        record = self._record
        if position <= self.position:
            record.fault("twice", f"{self.name} was sent {position} after {self.position}")
        elif position != self.position + 1:
            record.fault("missed", f"{self.name} was sent {position} after {self.position}")
        reason = data.pop("reason", None)
        del data["href"]
        key = data["external_id"] if data["source"] == OWN else None
        seen = Seen(kind, reason, data["id"], data["version"], digest(data), key)
        record.counts["deliveries"] += 1
        if record.events.setdefault(position, seen) != seen:
            record.fault("differs", f"{self.name} was sent {seen} at {position}, another {record.events[position]}")

    def _collect(self, position: int, kind: str, data: Body) -> None:
        """Filtered: remember what was told, and keep the list that a screen would show."""
        if position <= self.position:
            self._record.fault("twice", f"{self.name} was sent {position} after {self.position}")
        self._record.counts["deliveries"] += 1
        self.told.append((position, kind, data.get("reason"), data["id"], data["version"]))
        if kind == "closed" or data["closed_at"] is not None:
            self.open.pop(data["id"], None)
        else:
            self.open[data["id"]] = data["version"]
