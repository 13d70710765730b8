"""A server that finds every path and answers with the headers it was sent, over HTTP/1.1 and HTTP/2 in plain."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import orjson
from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.typing import Framework
from starlette.types import Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class Echo:
    """It answers at `url`."""

    url: str


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    heard: dict[str, str] = {}
    for name, value in scope["headers"]:
        known = heard.get(name.decode())
        heard[name.decode()] = value.decode() if known is None else f"{known}, {value.decode()}"
    head = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": orjson.dumps(heard)})


@asynccontextmanager
async def echoing() -> AsyncIterator[Echo]:
    """One on a free port."""
    stop = asyncio.Event()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        config = Config()
        config.bind = [f"fd://{sock.detach()}"]
        config.accesslog = config.errorlog = None
        config.graceful_timeout = 0.1

        async def until_stopped() -> None:
            await stop.wait()

        serving = asyncio.create_task(
            serve(cast("Framework", _echo), config, shutdown_trigger=until_stopped), name="echo"
        )
        try:
            yield Echo(f"http://127.0.0.1:{port}")
        finally:
            stop.set()
            await serving
