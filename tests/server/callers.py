"""Clients of raw HTTP/1.1 that call again and again."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: feed\r\n\r\n"


class Caller:
    """A bare connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def served(self) -> bool:
        """Whether a request is answered; False where the connection is reset."""
        try:
            async with asyncio.timeout(20):
                self.writer.write(HEALTH)
                return (await self.reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        except (ConnectionError, asyncio.IncompleteReadError):
            return False

    async def closed(self) -> bytes:
        """What comes until the server closes or resets the connection."""
        said = b""
        async with asyncio.timeout(40):
            with suppress(ConnectionError):
                while piece := await self.reader.read(65_536):
                    said += piece
        return said

    async def dribbles(self, text: bytes) -> bytes:
        """What comes while `text` is sent over and over, octet by octet, until the connection is closed."""
        said, place = b"", 0
        async with asyncio.timeout(40):
            while True:
                with suppress(ConnectionError):
                    self.writer.write(text[place % len(text)].to_bytes())
                place += 1
                try:
                    async with asyncio.timeout(0.05):
                        piece = await self.reader.read(65_536)
                except TimeoutError:
                    continue
                except ConnectionError:
                    return said
                if not piece:
                    return said
                said += piece


class Nobody:
    """A connection that was reset before anybody could use it."""

    async def served(self) -> bool:
        """No."""
        return False

    async def closed(self) -> bytes:
        """At once."""
        return b""


@asynccontextmanager
async def calling(url: str, source: str = "127.0.0.1") -> AsyncIterator[Caller]:
    """Connect from one of this machine's addresses."""
    where = urlsplit(url)
    sock = socket.socket()
    sock.bind((source, 0))
    with suppress(ConnectionResetError):  # so fast that it was connected and reset in one
        sock.connect((where.hostname, where.port))
    sock.setblocking(False)
    try:
        reader, writer = await asyncio.open_connection(sock=sock)
    except OSError:
        sock.close()
        nobody: Any = Nobody()
        yield nobody
        return
    try:
        yield Caller(reader, writer)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()
