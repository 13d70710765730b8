"""The writer of the peers: one POST an event over a connection that stays, with the payload that the feed's events have."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import orjson

from feed.bench.writer import new_run, now_us, posting
from feed.model.event import Event, Kind
from feed.model.frame import document, encode
from feed.model.posting import FIELDS

_PATIENCE = 10
"""Seconds for a peer to take an event."""


def payload(number: int, external_id: str) -> str:
    """What an event of the feed says in `data:`."""
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    job = dict.fromkeys(FIELDS) | posting(external_id)
    job |= {"id": number + 1, "tags": [], "posted_at": now, "updated_at": now, "version": 1}
    return encode(document(Event(number + 1, Kind.POSTED, job), Kind.POSTED)).decode()


class Publisher:
    """Publishes events to `/publish`: as nchan takes them, or as JSON for the Python apps."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, run: str, *, raw: bool) -> None:
        self.run = run
        self._reader = reader
        self._writer = writer
        self._raw = raw
        self._over = False

    async def write(self, number: int, count: int = 1) -> float:
        """Publish events, each in a request; returns when the last was answered."""
        for one in range(number, number + count):
            if (
                self._over or self._reader.at_eof()
            ):  # Hypercorn ends one after a thousand requests, or five idle seconds
                self._writer.close()
                self._reader, self._writer = await asyncio.open_connection(*self._writer.get_extra_info("peername"))
                self._over = False
            data = payload(one, f"{self.run}-{one}-{now_us()}")
            if self._raw:
                body, kind = data.encode(), "application/json\r\nX-EventSource-Event: posted"
            else:
                event = {"event": "posted", "id": f"217387001.{one}", "data": data}
                body, kind = orjson.dumps(event), "application/json"
            self._writer.write(
                b"POST /publish HTTP/1.1\r\nHost: bench\r\nAccept: text/json\r\n"
                b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (kind.encode(), len(body), body)
            )
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._answer()
            except (OSError, EOFError) as error:
                if isinstance(error, TimeoutError):
                    raise
                raise RuntimeError(f"the peer hung up: {error}") from error
        return time.monotonic()

    async def _answer(self) -> None:
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 20"):
            raise RuntimeError(f"publishing failed: {head.decode()}")
        for line in head.lower().split(b"\r\n"):
            self._over |= line == b"connection: close"
            if line.startswith(b"content-length:"):
                await self._reader.readexactly(int(line.partition(b":")[2]))


@asynccontextmanager
async def publishing(url: str, *, raw: bool) -> AsyncIterator[Publisher]:
    """A publisher on a connection of its own."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Publisher(reader, writer, new_run(), raw=raw)
    finally:
        writer.close()
