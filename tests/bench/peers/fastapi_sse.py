"""A queue for each subscriber and FastAPI's own server-sent events (fastapi.sse)."""

import asyncio
from collections.abc import AsyncIterable
from typing import Any

from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent

app = FastAPI()
queues: set[asyncio.Queue[dict[str, Any]]] = set()


@app.get("/stream", response_class=EventSourceResponse)
async def stream() -> AsyncIterable[ServerSentEvent]:
    queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    queues.add(queue)
    try:
        yield ServerSentEvent(comment="hi")
        while True:
            event = await queue.get()
            yield ServerSentEvent(raw_data=event["data"], event=event["event"], id=event["id"])
    finally:
        queues.discard(queue)


@app.post("/publish")
async def publish(event: dict[str, Any]) -> None:
    for queue in queues:
        queue.put_nowait(event)
