"""A feed that says what it is told to: a scripted ASGI app behind a real Hypercorn on a port of its own."""

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs

from hypercorn.asyncio import serve
from hypercorn.config import Config

# Seconds after which a test that waits has failed.
PATIENCE = 60


def frame(kind: str = "", data: Any = None, *, id: str = "", retry: int | None = None) -> bytes:
    """Return one frame of the stream; without anything else the id-only frame that pins the cursor."""
    lines = [f"retry: {retry}"] * (retry is not None) + [f"id: {id}"] * bool(id) + [f"event: {kind}"] * bool(kind)
    if data is not None:
        lines.append(f"data: {json.dumps(data)}")
    return ("\n".join(lines) + "\n\n").encode()


def posted(position: int, kind: str = "posted", **fields: Any) -> bytes:
    """Return the frame of a posting at `position` of epoch 1."""
    job = {"id": position, "title": f"Job {position}", "company": "Acme", "version": 1, **fields}
    return frame(kind, job, id=f"1.{position}")


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    http_version: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server does: sends `body`, then ends cleanly, stays silent, or breaks the connection."""

    body: bytes = b""
    status: int = 200
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)
    then: Literal["end", "silence", "break"] = "end"


def problem(status: int, *errors: dict[str, Any], **headers: str) -> Answer:
    """Return an answer with a problem document (RFC 9457)."""
    document = {"type": "about:blank", "title": "Invalid", "status": status, "detail": "no", "errors": errors}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(json.dumps(document).encode(), status, "application/problem+json", sent)


def counts(created: int = 0, updated: int = 0, unchanged: int = 0) -> Answer:
    """Return the answer to a batch."""
    said = {"created": created, "updated": updated, "unchanged": unchanged}
    return Answer(json.dumps(said).encode(), content_type="application/json")


class Script:
    """An ASGI app that gives one answer after the other, and silent streams once they are used up."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[Request] = []
        self.asked = asyncio.Event()
        """Set once a request has come."""
        self.left = asyncio.Event()
        """Set once a client has left a silent stream."""
        self._answers = list(answers)

    def add(self, answer: Answer) -> None:
        """Give this answer too, after the others."""
        self._answers.append(answer)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
            return
        self.requests.append(await _read(scope, receive))
        self.asked.set()
        answer = self._answers.pop(0) if self._answers else Answer(then="silence")
        headers = {"content-type": answer.content_type, **answer.headers}
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            }
        )
        await send({"type": "http.response.body", "body": answer.body, "more_body": answer.then != "end"})
        if answer.then == "silence":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.left.set()
        elif answer.then == "break":
            raise ConnectionError("as scripted")


async def _read(scope: Any, receive: Any) -> Request:
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return Request(
        scope["method"],
        scope["path"],
        parse_qs(scope["query_string"].decode()),
        {name.decode(): value.decode() for name, value in scope["headers"]},
        body,
        scope["http_version"],
    )


@asynccontextmanager
async def running(script: Script) -> AsyncIterator[str]:
    """Serve `script` with Hypercorn; yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(script, config, shutdown_trigger=stop.wait), name="scripted server")
        try:
            async with asyncio.timeout(PATIENCE):
                yield f"http://127.0.0.1:{port}"
        finally:
            stop.set()


@asynccontextmanager
async def feed(*arguments: str, stdin: int | None = None) -> AsyncIterator[Process]:
    """Run the command `feed`; whatever is left of it at the end is killed."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "", "NO_PROXY": "*", "TZ": "UTC", "COLUMNS": "100"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "feed", *arguments, stdin=stdin, stdout=PIPE, stderr=PIPE, env=environment
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
