"""The route of the stream: from a request to frames, by the wire where there is one, else through sse-starlette."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from feed.errors import DatabaseUnavailable, TooMany
from feed.fanout.ending import Ended, Farewell
from feed.fanout.history import History
from feed.fanout.hub import Hub
from feed.fanout.stream import Stream
from feed.fanout.streams import Streams
from feed.http.gate import Gate
from feed.http.problems import documented
from feed.hypercorn_adapter.connection import Connection, connection_of
from feed.model.posting import Posting
from feed.model.query import Start, StreamQuery
from feed.settings.settings import Settings
from feed.wire.wire import Disconnected, Wire


class StreamResponse(EventSourceResponse):
    """A stream as a response. Heartbeats and goodbyes are the stream's own; a client that stops reading is cut off."""

    def __init__(self, stream: Stream, streams: Streams, connection: Connection, send_timeout: float) -> None:
        # Where we can cut the connection one watch looks over all streams; a time-out for each send costs more.
        timeout = None if connection.reachable else send_timeout
        super().__init__(stream.frames(), ping=0, sep="\n", send_timeout=timeout)
        del self.headers["connection"]  # it has no place in HTTP/2
        self._stream = stream
        self._streams = streams
        self._connection = connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. By wire only the head goes out here: the body goes on when the application has returned."""
        wire = self._connection.wire
        if wire is None or scope["method"] != "GET":
            await self._by_events(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        wire.take(_by_wire(self._stream, self._streams, wire, self._connection.send), self._stream.gone)

    async def _by_events(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Under any other server."""
        stream, connection = self._stream, self._connection
        clock = asyncio.get_running_loop().time

        async def direct(message: Message) -> None:
            """Past the middlewares, which look at no body, straight to the server."""
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


async def _by_wire(stream: Stream, streams: Streams, wire: Wire, send: Send) -> None:
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
            properties["id"] = {"type": "string", "description": "`<epoch>.<position>`", "examples": ["217387001.42"]}
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
        "retry: 2731\n\nid: 217387001.41\n\n"
        'id: 217387001.42\nevent: posted\ndata: {"id":7,"title":"Site Reliability Engineer","company":"Acme", ...}\n\n'
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


def routes(hub: Hub, history: History, streams: Streams, gate: Gate, settings: Settings) -> APIRouter:
    """The stream over one hub."""
    router = APIRouter(prefix="/v1/jobs", tags=["stream"])

    @router.get("/stream", response_class=Response, responses=_documented())
    async def stream(
        request: Request,
        query: Annotated[StreamQuery, Query()],
        last_event_id: Annotated[str | None, Header(description="Sent by browsers when they reconnect.")] = None,
    ) -> Response:
        """Postings the moment they are committed: first what was missed, then live.

        `curl -N 'http://127.0.0.1:8000/v1/jobs/stream?location=berlin&since=1h'`
        """
        wanted = query.canonical(settings.filter_values)
        start = query.start(last_event_id, datetime.now(UTC))
        began = hub.head if start == Start() else 0 if start.cursor is None else start.cursor.position
        caller, refused = gate.stranger(request), streams.refusal()
        if refused is None:  # else no ticket is used up for it
            try:
                caller = await gate.admit_stream(request, query.ticket, start.cursor, began)
                if gate.too_often(caller):
                    refused = Farewell.RATE
            except TooMany:
                refused = Farewell.RATE
            except DatabaseUnavailable:
                refused = Farewell.UNAVAILABLE
        filters = query.encoded()
        snapshot = f"/v1/jobs?{filters}" if filters else "/v1/jobs"
        connection = connection_of(request.scope)
        opened = Stream(
            hub, history, wanted.narrowed(caller.grant.filter), start, snapshot, connection.cut, connection.wire, caller,
            filters,
        )  # fmt: skip
        if refused is not None:
            opened.end(refused)
        return StreamResponse(opened, streams, connection, settings.send_timeout)

    return router
