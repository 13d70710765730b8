"""A queue for each subscriber and sse-starlette's EventSourceResponse: what most tutorials arrive at."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from sse_starlette import EventSourceResponse

app = FastAPI()
queues: set[asyncio.Queue[dict[str, Any]]] = set()


@app.get("/stream")
async def stream() -> EventSourceResponse:
    async def events() -> AsyncIterator[dict[str, Any]]:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        queues.add(queue)
        try:
            yield {"comment": "hi"}
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    return EventSourceResponse(events())


@app.post("/publish")
async def publish(event: dict[str, Any]) -> None:
    for queue in queues:
        queue.put_nowait(event)
