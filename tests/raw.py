"""A subscriber on a bare socket: reads when it is told to, and never otherwise."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.reader import Frame, parse


class RawReader:
    """One HTTP/1.1 stream; what is not asked for stays in the kernel's buffers."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.last_id: str | None = None
        self.status = b""
        self._wire = b""  # as it came
        self._body = b""  # without the chunks' framing

    async def _more(self, seconds: float) -> bool:
        """Take one piece off the socket; False at its end."""
        async with asyncio.timeout(seconds):
            piece = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        self._wire += piece
        return bool(piece)

    async def head(self, seconds: float = 20) -> bytes:
        """The response's status line and headers."""
        while b"\r\n\r\n" not in self._wire:
            assert await self._more(seconds), self._wire
        head, _, self._wire = self._wire.partition(b"\r\n\r\n")
        self.status = head.split(b"\r\n")[0]
        return head

    async def frame(self, seconds: float = 20) -> Frame | None:
        """The next frame; None at a clean end. Raises ConnectionError where the stream was cut."""
        while b"\n\n" not in self._body:
            size, found, rest = self._wire.partition(b"\r\n")
            if found and len(rest) >= int(size, 16) + 2:
                length = int(size, 16)
                if not length:
                    return None
                self._body += rest[:length]
                self._wire = rest[length + 2 :]
            elif not await self._more(seconds):
                raise ConnectionResetError("the stream ended without its last chunk")
        block, _, self._body = self._body.partition(b"\n\n")
        read = parse(block)
        if read.id is not None:
            self.last_id = read.id
        return read

    async def jobs(self, count: int) -> list[Frame]:
        """The next `count` posted, updated or closed frames; others are passed over."""
        seen: list[Frame] = []
        while len(seen) < count:
            found = await self.frame()
            assert found is not None, f"the stream ended after {len(seen)} of {count}"
            if found.event in ("posted", "updated", "closed"):
                seen.append(found)
        return seen

    async def until(self, event: str) -> list[Frame]:
        """Frames up to and including the next of this name."""
        seen: list[Frame] = []
        while not seen or seen[-1].event != event:
            found = await self.frame()
            assert found is not None, f"the stream ended before {event}"
            seen.append(found)
        return seen


@asynccontextmanager
async def raw_reading(url: str, query: str = "", *, buffer: int = 65536) -> AsyncIterator[RawReader]:
    """Open `/v1/jobs/stream` of the server at `url` with a receive buffer of `buffer` bytes."""
    where = urlsplit(url)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (where.hostname, where.port))
        request = f"GET /v1/jobs/stream{query} HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n"
        await loop.sock_sendall(sock, request.encode())
        reader = RawReader(sock)
        await reader.head()
        yield reader
