"""A real little HTTP server that publishes keys (RFC 7517), as an identity provider does."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
from jwt.algorithms import get_default_algorithms


class Publisher:
    """What it publishes can be changed, spoiled, and taken off the net; it counts who asked."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.answer: bytes | None = None  # instead of the keys
        self.status = 200
        self.reads = 0
        self.port = 0
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """Where the keys are."""
        return f"http://127.0.0.1:{self.port}/keys"

    def publish(self, algorithm: str = "RS256", **keys: Any) -> None:
        """Publish these private keys' public halves, and no others, each under its name."""
        form = get_default_algorithms()[algorithm]
        self.keys = [
            json.loads(form.to_jwk(key.public_key())) | {"kid": name, "use": "sig", "alg": algorithm}
            for name, key in keys.items()
        ]

    async def start(self) -> None:
        """Be on the net; on the same port when it comes back."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Be off it."""
        assert self._server
        self._server.close()
        for writer in list(self._serving):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.reads += 1
            await self.unblocked.wait()
            body = json.dumps({"keys": self.keys}).encode() if self.answer is None else self.answer
            head = f"HTTP/1.1 {self.status} x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._serving.discard(writer)
            writer.close()


@asynccontextmanager
async def publishing() -> AsyncIterator[Publisher]:
    """A publisher on a port of its own."""
    publisher = Publisher()
    await publisher.start()
    try:
        yield publisher
    finally:
        await publisher.stop()


def signed(key: Any, kid: str | None, algorithm: str = "RS256", **claims: Any) -> str:
    """A token for this service, signed with a key of that name."""
    whole = {"sub": "alice", "scope": "read", "aud": "feed", "exp": 32_503_680_000} | claims
    return jwt.encode(whole, key, algorithm, headers={} if kid is None else {"kid": kid})
