"""A web server whose every byte a test decides: an answer is a coroutine that writes to the connection."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from feed.serving.certificate import self_signed

ALLOWED, FORBIDDEN = "127.0.0.1", "127.0.0.2"
"""Both reach the server; tests allow the network of the first alone."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""
    at: float
    """The loop's time at which it came."""


Respond = Callable[[asyncio.StreamWriter, Asked], Awaitable[None]]


@dataclass(slots=True)
class FaultServer:
    """Answers by path, and remembers what it was asked. `url` and `elsewhere` are its two names."""

    port: int
    scheme: str
    certificate: Path | None
    answers: dict[str, Respond] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    open: int = 0
    most_open: int = 0

    def url(self, path: str, host: str = ALLOWED) -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def count(self, path: str) -> int:
        return sum(asked.path == path for asked in self.asked)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            asked = Asked(head[0].split(" ")[1], headers, asyncio.get_running_loop().time())
            self.asked.append(asked)
            await self.answers.get(asked.path, answer(b"", status=404))(writer, asked)
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass  # it has heard enough, or does not trust us
        finally:
            self.open -= 1
            writer.close()


def answer(body: bytes = b"{}", *, status: int = 200, **headers: str) -> Respond:
    """A whole answer; `content_type` in the headers is `Content-Type`, and so on."""
    fields = {"Content-Length": str(len(body)), "Content-Type": "application/json"}
    fields |= {name.replace("_", "-").title(): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)

    async def respond(writer: asyncio.StreamWriter, _: Asked) -> None:
        writer.write(f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body)
        await writer.drain()

    return respond


def in_turn(*answers: Respond) -> Respond:
    """One answer after the other; the last one for ever."""
    left = list(answers)

    async def respond(writer: asyncio.StreamWriter, asked: Asked) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(writer, asked)

    return respond


def raw(*pieces: bytes, pause: float = 0.0) -> Respond:
    """Bytes as they are, with a pause between two, and then the end of the connection."""

    async def respond(writer: asyncio.StreamWriter, _: Asked) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return respond


@asynccontextmanager
async def fault_server(folder: Path | None = None) -> AsyncIterator[FaultServer]:
    """Run one on a free port; with a folder for its certificate it speaks TLS."""
    context = certificate = None
    if folder is not None:
        certificate, key = await asyncio.to_thread(self_signed, folder, FORBIDDEN)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    made = FaultServer(0, "http" if folder is None else "https", certificate)
    first = await asyncio.start_server(made.serve, ALLOWED, 0, ssl=context)
    made.port = first.sockets[0].getsockname()[1]
    second = await asyncio.start_server(made.serve, FORBIDDEN, made.port, ssl=context)
    try:
        yield made
    finally:
        for one in (first, second):
            one.close()
            await one.wait_closed()
