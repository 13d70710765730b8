"""Requests: each gets an id, which all of its log lines carry. Writes and failures are logged, and every answer is counted.

This is the outermost step for all requests but those for the stream, which does the same for itself (stream.py).
"""

import asyncio
import random
import re
from collections.abc import Iterable
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feed.observability.metrics import Metrics

log = structlog.get_logger(__name__)

_NAME = b"x-request-id"
_SHAPE = re.compile(rb"[\x21-\x7e]{1,128}\Z")
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
NO_ROUTE = "none"
"""The route of a request that matches none: paths that clients make up must not get into metrics and logs."""


class Requests:
    """Wraps an application."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        given = request_id_of(scope["headers"])
        exchange = _Exchange(scope, receive, send, given)
        with structlog.contextvars.bound_contextvars(request_id=given.decode()):
            try:
                await self._app(scope, exchange.receive, exchange.send)
            finally:
                if exchange.status is not None:  # else the client left, or the connection ended, before an answer
                    self.note(scope, exchange.status, exchange.began, exchange.taken)

    def note(self, scope: Scope, status: int, began: float, taken: int = 0) -> None:
        """Count an answer, and log it if it is a write's or a failure.

        `began` is the loop time at which the request came, `taken` the size of its body in bytes.
        """
        method, route = scope["method"], route_of(scope)
        self._metrics.request(method, route, status)
        if status < 500 and method not in _WRITES:
            return
        seconds = round(asyncio.get_running_loop().time() - began, 4)
        if status >= 500:
            log.warning("request failed", method=method, route=route, status=status, seconds=seconds, bytes=taken)
        else:
            log.info("write", method=method, route=route, status=status, seconds=seconds, bytes=taken)


class _Exchange:
    """One request and its answer, on their way through."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, given: bytes) -> None:
        self.scope = scope
        self.began = asyncio.get_running_loop().time()
        self.status: int | None = None
        self.taken = 0  # bytes of the request's body so far
        self._receive = receive
        self._send = send
        self._given = given

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.taken += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (_NAME, self._given)]
        await self._send(message)


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the id that a request was sent with, or a new one."""
    for name, value in headers:
        if name == _NAME and _SHAPE.match(value):
            return value
    return b"%016x" % random.getrandbits(64)


def route_of(scope: Scope) -> str:
    """Return the path template of the route that a request matched; `NO_ROUTE` if there is none."""
    found: Any = scope.get("route")
    return getattr(found, "path", NO_ROUTE)
