"""A plain reader of the stream for tests: every frame as it came, over HTTP/1.1 or HTTP/2."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; what it lacks is None."""

    id: str | None = None
    event: str | None = None
    data: Any = None
    retry: int | None = None

    @property
    def position(self) -> int:
        """The position in its id."""
        assert self.id is not None
        return int(self.id.split(".")[1])


def parse(block: bytes) -> Frame:
    """One block of lines between blank ones."""
    fields: dict[str, Any] = {}
    for line in block.split(b"\n"):
        name, _, value = line.partition(b": ")
        assert name in (b"id", b"event", b"data", b"retry"), line
        assert name.decode() not in fields, block
        fields[name.decode()] = value.decode()
    if "data" in fields:
        fields["data"] = orjson.loads(fields["data"])
    if "retry" in fields:
        fields["retry"] = int(fields["retry"])
    return Frame(**fields)


class Reader:
    """Frames of one open stream, in order."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.last_id: str | None = None
        self._chunks = response.aiter_raw()
        self._rest = b""

    async def frame(self, seconds: float = 20) -> Frame | None:
        """The next frame; None at the end of the stream."""
        async with asyncio.timeout(seconds):
            while b"\n\n" not in self._rest:
                try:
                    self._rest += await anext(self._chunks)
                except StopAsyncIteration:
                    assert not self._rest, self._rest
                    return None
        block, _, self._rest = self._rest.partition(b"\n\n")
        found = parse(block)
        if found.id is not None:
            self.last_id = found.id
        return found

    async def raw(self, count: int, seconds: float = 20) -> bytes:
        """The bytes of the next `count` frames."""
        async with asyncio.timeout(seconds):
            while self._rest.count(b"\n\n") < count:
                self._rest += await anext(self._chunks)
        *blocks, self._rest = self._rest.split(b"\n\n", count)
        return b"".join(block + b"\n\n" for block in blocks)

    async def until(self, event: str) -> list[Frame]:
        """Frames up to and including the next of this name."""
        seen = []
        while True:
            found = await self.frame()
            assert found is not None, f"the stream ended before {event}: {seen}"
            seen.append(found)
            if found.event == event:
                return seen

    async def jobs(self, count: int) -> list[Frame]:
        """The next `count` posted, updated or closed frames; others are passed over."""
        seen: list[Frame] = []
        while len(seen) < count:
            found = await self.frame()
            assert found is not None, f"the stream ended after {len(seen)} of {count}"
            if found.event in ("posted", "updated", "closed"):
                seen.append(found)
        return seen

    async def rest(self) -> list[Frame]:
        """Frames until the end of the stream."""
        seen = []
        while (found := await self.frame()) is not None:
            seen.append(found)
        return seen


@asynccontextmanager
async def reading(
    url: str, query: str = "", *, http2: bool = False, headers: dict[str, str] | None = None, verify: Any = True
) -> AsyncIterator[Reader]:
    """Open `/v1/jobs/stream` of the server at `url`."""
    async with (
        httpx.AsyncClient(http1=not http2, http2=http2, timeout=None, verify=verify, trust_env=False) as client,
        client.stream("GET", f"{url}/v1/jobs/stream{query}", headers=headers) as response,
    ):
        assert response.status_code == 200, (await response.aread()).decode()
        yield Reader(response)
