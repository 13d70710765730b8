"""The stream's endpoint: it sends frames straight to the connection (the wire), or else through sse-starlette.

It is an ASGI application of its own, which requests reach past FastAPI and every middleware: when ten thousand clients come
back at once, what each of them costs decides how long they wait. So it does here, in few steps, what the others do for other
requests: the request's id, CORS, metrics, and problems as answers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from feed.errors import DatabaseUnavailable, FeedError, TooMany
from feed.fanout.ending import Ended, Goodbye
from feed.fanout.sources import StreamSources
from feed.fanout.stream import Stream
from feed.fanout.stream_request import StreamRequest
from feed.fanout.streams import Streams
from feed.http.cors import Cors
from feed.http.gate import Gate, Visitor
from feed.http.problems import answer_to
from feed.http.requests import Requests, request_id_of
from feed.hypercorn_adapter.connection import Connection, connection_of
from feed.hypercorn_adapter.server_wire import ServerWire
from feed.model.filter import Filter
from feed.model.query import Start, StreamQuery, stream_query
from feed.settings.settings import Settings
from feed.wire.queue_wire import QueueWire, Waves
from feed.wire.wire import Disconnected

log = structlog.get_logger(__name__)

PATH = "/v1/jobs/stream"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""The headers of a stream, besides its media type."""
_RAW_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"content-type", b"text/event-stream; charset=utf-8"),
]
"""All headers of a stream."""
_REMEMBERED_QUERIES = 1_000
_REMEMBERED_BYTES = 400
"""Queries of at most so many bytes are remembered with what they mean: most clients ask for the same."""


class StreamResponse(EventSourceResponse):
    """The response that sends a stream under servers that have no wire; a client that stops reading is cut off."""

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
        """Send the response."""
        body = self._by_events(scope, receive, send)
        await (body if self._unopened is None else _watched(body, self._stream, self._unopened))

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


async def _watched(body: Coroutine[Any, Any, None], stream: Stream, unopened: Callable[[], Awaitable[None]]) -> None:
    """Send the body, and await `unopened` if the stream has not begun."""
    try:
        await body
    finally:
        if not stream.opened:
            await unopened()


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


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a query string asks for."""

    query: StreamQuery
    filter: Filter
    filters: str
    """The filters as the client wrote them, as a query string."""
    snapshot: str
    """The path of the list of what the filter matches."""


class StreamEndpoint:
    """`GET /v1/jobs/stream`: an ASGI application."""

    def __init__(
        self, sources: StreamSources, streams: Streams, gate: Gate, settings: Settings, requests: Requests, cors: Cors
    ) -> None:
        self._sources = sources
        self._streams = streams
        self._gate = gate
        self._settings = settings
        self._requests = requests
        self._cors = cors
        self._waves = Waves()
        self._remembered = lru_cache(_REMEMBERED_QUERIES)(self._asked)
        self.route = Route(PATH, self, methods=["GET", "HEAD"])
        """By which the router knows that there is such a path, and what it allows."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["route"] = self.route
        began = asyncio.get_running_loop().time()
        request = Request(scope, receive)
        request_id = request_id_of(scope["headers"])
        structlog.contextvars.bind_contextvars(request_id=request_id.decode())
        headers = [*self._cors.headers_for(request.headers.get("origin")), (b"x-request-id", request_id)]
        try:
            stream, unopened = await self._open(request)
        except Exception as error:
            if not isinstance(error, FeedError | RequestValidationError):
                log.exception("a stream could not be opened")
            response = await answer_to(request, error)
        else:
            connection = connection_of(scope)
            if stream is not None and connection.wire is not None:
                await self._send_by_wire(stream, connection, connection.wire, headers, unopened)
                self._requests.note(scope, 200, began)
                return
            if stream is None:
                response = Response(headers=_HEADERS, media_type="text/event-stream")
            else:
                timeout = self._settings.streams.send_timeout
                response = StreamResponse(stream, self._streams, connection, timeout, unopened)
        response.raw_headers.extend(headers)
        await response(scope, receive, send)
        self._requests.note(scope, response.status_code, began)

    async def _send_by_wire(
        self, stream: Stream, connection: Connection, wire: ServerWire, headers: list[tuple[bytes, bytes]],
        unopened: Callable[[], Awaitable[None]] | None,
    ) -> None:  # fmt: skip
        """Send the head of the response; the body goes on after this application has returned."""
        head = {"type": "http.response.start", "status": 200, "headers": [*_RAW_HEADERS, *headers]}
        await connection.send(head)
        body = _by_wire(stream, self._streams, wire, connection.send)
        # A stream without a ticket needs no second coroutine, which would cost memory for as long as it is open.
        wire.take(body if unopened is None else _watched(body, stream, unopened), stream.gone)
        if wire.closed and unopened is not None:  # the client was gone already, so the body was not started
            body.close()
            await unopened()

    async def _open(self, request: Request) -> tuple[Stream | None, Callable[[], Awaitable[None]] | None]:
        """Return the stream that a request asks for, which may have to say goodbye at once; None for HEAD.

        The function, where there is one, is to be awaited if the stream ends without having begun. Raises what the gate
        raises, Invalid, and RequestValidationError.
        """
        gate, streams, hub = self._gate, self._streams, self._sources.hub
        text = request.scope["query_string"]
        asked = self._remembered(text) if len(text) <= _REMEMBERED_BYTES else self._asked(text)
        query = asked.query
        start = query.start(request.headers.get("last-event-id"), datetime.now(UTC))
        began = hub.head if start == Start() else 0 if start.cursor is None else start.cursor.position
        if request.method == "HEAD":
            await gate.admit_stream(request, query.ticket, start.cursor)
            return None, None
        visitor, refused = None, streams.refusal()
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
        if visitor is None:
            visitor = Visitor(gate.stranger(request))
        caller = visitor.caller
        connection = connection_of(request.scope)
        wire = connection.wire or QueueWire(self._settings.streams.subscriber_buffer, self._waves, connection.cut)
        wanted = StreamRequest(asked.filter.narrowed(caller.grant.filter), start, asked.snapshot, asked.filters)
        stream = Stream(self._sources, wanted, wire, caller)
        if refused is not None:
            stream.end(refused)
        return stream, None if visitor.ticket is None else partial(gate.give_back, visitor, redeemed_at)

    def _asked(self, text: bytes) -> _Asked:
        try:
            query = stream_query(text)
        except ValidationError as error:
            entries = [{**entry, "loc": ("query", *entry["loc"])} for entry in error.errors(include_url=False)]
            raise RequestValidationError(entries) from None
        filters = query.encoded()
        snapshot = f"/v1/jobs?{filters}" if filters else "/v1/jobs"
        return _Asked(query, query.canonical(self._settings.requests.filter_values), filters, snapshot)
