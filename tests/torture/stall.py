"""Clients that stall, in three ways; they are to cost nobody else anything, and to be cut off."""

import asyncio
import random
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from tests.h2client import STREAM, h2client, insecure

KINDS = ("h1 socket not read", "h2 socket not read", "h2 window not opened")
_LONGEST = 15.0
"""Seconds after which a client gives up waiting to be cut off; the service's `send_timeout` is far less."""
_ESTABLISHED = 1  # of a TCP connection (linux/tcp_states.h)


class Staller:
    """Subscribes, stops taking anything, and waits to be cut off; again and again."""

    def __init__(self, kind: str, urls: Callable[[], list[str]], counts: Counter[str], seed: int) -> None:
        self.name = f"staller, {kind}"
        self._kind = kind
        self._urls = urls
        self._counts = counts
        self._rng = random.Random(seed)

    async def run(self) -> None:
        """Stall for ever."""
        ways = {KINDS[0]: self._http1, KINDS[1]: self._http2_deaf, KINDS[2]: self._http2_shut}
        while True:
            urls = self._urls()
            if urls:
                url = self._rng.choice(urls)
                with suppress(OSError, TimeoutError, AssertionError):  # the service may be on its way down
                    async with asyncio.timeout(_LONGEST):
                        await ways[self._kind](url)
                        # Who was cut off because its service ended proves nothing.
                        self._counts[f"{'cut off' if url in self._urls() else 'ended'}: {self._kind}"] += 1
            await asyncio.sleep(self._rng.uniform(0, 0.5))

    async def _http1(self, url: str) -> None:
        where = urlsplit(url)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (where.hostname, where.port))
            context = _http1_context() if where.scheme == "https" else None
            reader, writer = await asyncio.open_connection(
                sock=sock, limit=1024, ssl=context, server_hostname=where.hostname if context else None
            )
        except BaseException:
            sock.close()
            raise
        try:
            writer.write(f"GET {STREAM}?from=earliest HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
            await reader.readline()
            await _cut(writer)
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def _http2_deaf(self, url: str) -> None:
        async with h2client(url, buffer=4096) as client:
            client.shut = {0}
            exchange = await client.get(f"{STREAM}?from=earliest")
            await client.until(lambda: exchange.headers)
            # Windows wide open: what holds the stream up is the socket.
            await client.send(*(bytes((0, 0, 4, 8, 0, 0, 0, 0, one, 0x7F, 0, 0, 0)) for one in (0, exchange.id)))
            await _cut(client.writer)

    async def _http2_shut(self, url: str) -> None:
        async with h2client(url) as client:
            exchange = await client.get(f"{STREAM}?from=earliest")
            client.shut = {0, exchange.id}
            await client.until(lambda: exchange.over or client.over, _LONGEST)


async def _cut(writer: asyncio.StreamWriter) -> None:
    """Wait until the other side has ended a connection, which nobody reads: the kernel knows."""
    sock = writer.get_extra_info("socket")
    while sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED:
        await asyncio.sleep(0.1)


def _http1_context() -> ssl.SSLContext:
    context = insecure()
    context.set_alpn_protocols(["http/1.1"])
    return context
