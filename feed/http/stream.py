"""The route of the stream: it sends frames straight to the connection (the wire), or else through sse-starlette."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from feed.errors import DatabaseUnavailable, TooMany
from feed.fanout.ending import Ended, Goodbye
from feed.fanout.sources import StreamSources
from feed.fanout.stream import Stream
from feed.fanout.stream_request import StreamRequest
from feed.fanout.streams import Streams
from feed.http.gate import Gate, Visitor
from feed.http.methods import Route, is_head
from feed.http.problems import documented
from feed.hypercorn_adapter.connection import Connection, connection_of
from feed.hypercorn_adapter.server_wire import ServerWire
from feed.model.posting import Posting
from feed.model.query import Start, StreamQuery
from feed.settings.settings import Settings
from feed.wire.queue_wire import QueueWire, Waves
from feed.wire.wire import Disconnected

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""The headers of a stream, besides its media type."""


class StreamResponse(EventSourceResponse):
    """The response that sends a stream. The stream makes its own heartbeats; a client that stops reading is cut off."""

    def __init__(
        self, stream: Stream, streams: Streams, connection: Connection, send_timeout: float,
        unopened: Callable[[], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        """Answer with `stream`; `unopened` is awaited if the stream ends without having begun."""
        # If the connection can be cut, one task watches all streams, which costs less than a time-out for each send.
        timeout = None if connection.reachable else send_timeout
        queue = stream.wire if isinstance(stream.wire, QueueWire) else None
        super().__init__(
            iter(()) if queue is None else queue.pieces(), headers=_HEADERS, ping=0, sep="\n", send_timeout=timeout,
            # A bound method of its own would keep the response, and the connection, until the garbage is collected.
            data_sender_callable=None if queue is None else self._fill_queue,
        )  # fmt: skip
        del self.headers["connection"]  # HTTP/2 forbids it
        self._stream = stream
        self._streams = streams
        self._connection = connection
        self._unopened = unopened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response. With a wire only its head is sent here: the body goes on after the application has returned."""
        wire = self._connection.wire
        if wire is None:
            await self._watched(self._by_events(scope, receive, send))
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = _by_wire(self._stream, self._streams, wire, self._connection.send)
        # A stream without a ticket needs no second coroutine, which would cost memory for as long as it is open.
        wire.take(body if self._unopened is None else self._watched(body), self._stream.gone)
        if wire.closed and self._unopened is not None:  # the client was gone already, so the body was not started
            body.close()
            await self._unopened()

    async def _watched(self, body: Coroutine[Any, Any, None]) -> None:
        """Send the body, and tell `unopened` if the stream has not begun."""
        try:
            await body
        finally:
            if self._unopened is not None and not self._stream.opened:
                await self._unopened()

    async def _by_events(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the body through sse-starlette, under servers that have no wire: it fetches pieces from a queue."""
        stream, connection = self._stream, self._connection
        clock = asyncio.get_running_loop().time

        async def direct(message: Message) -> None:
            """Send the body straight to the server: no middleware looks at it."""
            if message["type"] != "http.response.body":
                await send(message)
                return
            stream.sending_since = clock()
            await connection.send(message)
            stream.sending_since = None

        with self._streams.holding(stream):
            try:
                await super().__call__(scope, receive, direct)
            except SendTimeoutError:
                stream.cut()

    async def _fill_queue(self) -> None:
        """Put the body into the queue, beside the task that fetches it from there."""
        wire = self._stream.wire
        try:
            async with aclosing(self._stream.chunks()) as chunks:
                async for chunk in chunks:
                    await wire.send(chunk)
        except Disconnected:
            return
        if isinstance(wire, QueueWire):
            wire.finish()


async def _by_wire(stream: Stream, streams: Streams, wire: ServerWire, send: Send) -> None:
    """The body by wire, counted as open for as long as it lasts; and its end, past every middleware."""
    with streams.holding(stream):
        leaving = stream.leaving
        if leaving:
            wire.refused()
        try:
            async with aclosing(stream.chunks()) as chunks:
                async for chunk in chunks:
                    if leaving and not wire.write(chunk):
                        wire.reset()  # the goodbye does not fit now, and a refused stream is not waited for
                        stream.cut(Ended.CLIENT)
                        return
                    if not leaving:
                        await wire.send(chunk)
        except Disconnected:
            return
        if not wire.closed:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _documented() -> dict[int | str, dict[str, Any]]:
    posting = Posting.model_json_schema()

    def event(name: str, data: dict[str, Any], says: str, *, has_id: bool = True) -> dict[str, Any]:
        properties: dict[str, Any] = {
            "event": {"const": name},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data},
        }
        if has_id:
            properties["id"] = {
                "type": "string",
                "description": "`<epoch>.<position>`",
                "examples": ["217387001042.42"],
            }
        return {"type": "object", "description": says, "properties": properties, "required": list(properties)}

    def shape(**properties: str) -> dict[str, Any]:
        return {"type": "object", "properties": {name: {"type": kind} for name, kind in properties.items()}}

    closed = {**posting, "properties": {**posting["properties"], "reason": {
        "enum": ["closed", "deleted", "expired", "left_filter"]}}}  # fmt: skip
    frames = [
        {"type": "object", "description": "How long to wait before coming back; then the cursor, pinned. No event fires.",
         "properties": {"retry": {"type": "integer", "minimum": 1}, "id": {"type": "string"}}},
        event("posted", posting, "A posting is new, or open again."),
        event("updated", posting, "A posting changed. It may be new to this filter: insert or replace by `id`."),
        event("closed", closed, "A posting is closed, or left this filter (`reason`)."),
        event("synced", shape(position="integer", replayed="integer"), "Replay has met the head.", has_id=False),
        event("heartbeat", shape(position="integer", at="string"), "Nothing happened up to `position`."),
        event("reset", shape(reason="string", snapshot="string"),
              "The cursor is of no use (malformed, ahead, epoch, pruned): read `snapshot`, go on from the head."),
        event("goodbye", shape(reason="string", retry_ms="integer"),
              "The stream ends (drain, full, rate, unavailable, max_age, expired, revoked, kicked): come back after "
              "`retry_ms`, with the last id.", has_id=False),
    ]  # fmt: skip
    example = (
        "retry: 2731\n\nid: 217387001042.41\n\n"
        'id: 217387001042.42\nevent: posted\ndata: {"id":7,"title":"Site Reliability Engineer","company":"Acme", ...}\n\n'
        'event: synced\ndata: {"position":42,"replayed":1}\n\n'
    )
    return {
        200: {
            "description": "Server-sent events, without end.",
            "content": {
                "text/event-stream": {"schema": {"type": "string"}, "itemSchema": {"oneOf": frames}, "example": example}
            },
        },
    } | documented(401, 403, 422)


def routes(sources: StreamSources, streams: Streams, gate: Gate, settings: Settings) -> APIRouter:
    """The stream, served from `sources`."""
    hub = sources.hub
    router = APIRouter(prefix="/v1/jobs", tags=["stream"], route_class=Route)
    waves = Waves()

    @router.get("/stream", response_class=Response, responses=_documented())
    async def stream(
        request: Request,
        query: Annotated[StreamQuery, Query()],
        last_event_id: Annotated[str | None, Header(description="Sent by browsers when they reconnect.")] = None,
    ) -> Response:
        """Stream postings the moment they are committed: first those that were missed, then live ones.

        `curl -N 'http://127.0.0.1:8000/v1/jobs/stream?location=berlin&since=1h'`
        """
        wanted = query.canonical(settings.requests.filter_values)
        start = query.start(last_event_id, datetime.now(UTC))
        began = hub.head if start == Start() else 0 if start.cursor is None else start.cursor.position
        if is_head(request.scope):
            await gate.admit_stream(request, query.ticket, start.cursor)
            return Response(headers=_HEADERS, media_type="text/event-stream")
        visitor, refused = Visitor(gate.stranger(request)), streams.refusal()
        redeemed_at = None
        # A service that is full looks at tickets all the same: they stay good for as long as their clients are told to wait.
        if refused is None or (refused is Goodbye.FULL and query.ticket is not None):
            try:
                visitor = await gate.admit_stream(request, query.ticket, start.cursor)
                if refused is None and gate.too_often(visitor.caller):
                    refused = Goodbye.RATE
                refused = refused or streams.refusal_of(visitor.caller)
                if refused is None:
                    redeemed_at = await gate.redeem(request, visitor, began)
            except TooMany:
                refused = Goodbye.RATE
            except DatabaseUnavailable:
                refused = Goodbye.UNAVAILABLE
        caller = visitor.caller
        filters = query.encoded()
        snapshot = f"/v1/jobs?{filters}" if filters else "/v1/jobs"
        connection = connection_of(request.scope)
        wire = connection.wire or QueueWire(settings.streams.subscriber_buffer, waves, connection.cut)
        asked = StreamRequest(wanted.narrowed(caller.grant.filter), start, snapshot, filters)
        opened = Stream(sources, asked, wire, caller)
        if refused is not None:
            opened.end(refused)
        unopened = None if visitor.ticket is None else partial(gate.give_back, visitor, redeemed_at)
        return StreamResponse(opened, streams, connection, settings.streams.send_timeout, unopened)

    return router
