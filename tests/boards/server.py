"""The server of the played boards: plain sockets, so that it can break HTTP as boards do."""

import asyncio
import json
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.boards.answers import Answer, answer_of, head_of
from tests.boards.certificate import make_certificate
from tests.boards.script import Board
from tests.boards.shapes import source_of, url_of

_KEPT = 10_000
"""Requests that are remembered."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that came."""

    at: float
    """Seconds of the monotonic clock."""
    host: str
    target: str
    headers: dict[str, str]


class Boards:
    """Boards behind sockets; `serving` makes them."""

    def __init__(self, hosts: list[str], ca_file: Path | None) -> None:
        self.hosts = hosts
        """Scheme, address and port, several where boards are to be on hosts of their own."""
        self.ca_file = ca_file
        """What a client must trust, where it is HTTPS."""
        self.all: dict[str, Board] = {}
        """The boards by what the feed calls them."""
        self.asked: deque[Asked] = deque(maxlen=_KEPT)
        self.robots = "User-agent: *\nAllow: /\n"
        self._paths: dict[str, Board] = {}
        self._answering: set[asyncio.Task[Any]] = set()

    def open(self, source: str, name: str, jobs: int = 0) -> Board:
        """Open a board with so many postings."""
        board = Board(source, name, self.hosts[len(self.all) % len(self.hosts)])
        board.post(jobs)
        self.all[source_of(board)] = self._paths[f"{source}/{name}"] = board
        return board

    def script(self) -> dict[str, Any]:
        """Return what was posted, updated and closed on each board."""
        return {
            name: {**board.counts(), "told": board.told, "reads": board.reads, "url": url_of(board)}
            for name, board in self.all.items()
        }

    def answer(self, target: str, headers: dict[str, str]) -> tuple[Answer, Board | None]:
        """Return the answer to a request, and the board whose list it asks for."""
        path = urlsplit(target).path
        if path == "/script":
            return Answer(200, {"Content-Type": "application/json"}, json.dumps(self.script()).encode()), None
        if path == "/robots.txt":
            return Answer(200, {"Content-Type": "text/plain"}, self.robots.encode()), None
        source, _, rest = path.removeprefix("/").partition("/")
        name, _, inside = rest.partition("/")
        board = self._paths.get(f"{source}/{name}")
        if board is None:
            return Answer(404, {"Content-Type": "application/json"}, b'{"error": "not found"}'), None
        if inside.startswith("jobs/"):
            is_open = inside.removeprefix("jobs/") in map(str, board.jobs)
            return Answer(200 if is_open else 404, {"Content-Type": "text/html"}, b"<!doctype html><p>A posting"), None
        board.reads += 1
        return answer_of(board, target, headers), board

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            try:
                request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                target = request.split(" ")[1]
                fields = dict(line.split(": ", 1) for line in lines if ": " in line)
                headers = {name.lower(): value for name, value in fields.items()}
                self.asked.append(Asked(time.monotonic(), headers.get("host", ""), target, headers))
                made, board = self.answer(target, headers)
                posted = board and board.counts()
                await _send(writer, made)
                if board is not None and made.whole and board.counts() == posted:
                    board.told += 1
            finally:
                writer.close()

    async def stop(self) -> None:
        """End the answers that are still under way: a drip has no end."""
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    writer.write(head_of(answer))
    for piece in [answer.body] if isinstance(answer.body, bytes) else answer.body:
        writer.write(piece)
        await writer.drain()
        if answer.pause:
            await asyncio.sleep(answer.pause)
    await writer.drain()


@asynccontextmanager
async def serving(port: int = 0, tls: Path | None = None, hosts: int = 1) -> AsyncIterator[Boards]:
    """Serve boards on `hosts` addresses of this machine; `tls` is the folder for a certificate, or None for plain HTTP.

    The port is the same on each, and 0 is a free one.
    """
    addresses = [f"127.0.0.{number}" for number in range(1, hosts + 1)]
    context, ca_file = None, None
    if tls is not None:
        ca_file, key = await asyncio.to_thread(make_certificate, tls, addresses)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ca_file, key)
    boards = Boards([], ca_file)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(boards.stop)
        for address in addresses:
            server = await asyncio.start_server(boards.serve, address, port, ssl=context)
            stack.callback(server.close)
            port = server.sockets[0].getsockname()[1]
            boards.hosts.append(f"{'https' if tls else 'http'}://{address}:{port}")
        yield boards
