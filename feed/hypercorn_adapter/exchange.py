"""An exchange: one request and its response, between the protocol of a connection and the ASGI application.

The application runs in a task of its own. What is particular here:
- `scope["extensions"]["feed.wire"]` is the wire, for whoever wants to write the body by it. Such a body goes on in the same
  task after the application has returned: an idle stream then costs a task and not a stack of middlewares.
- The application is not called for a client that left before its turn came.
- The wire learns that the client is gone. Nobody need wait for `http.disconnect`, which would take a task.
- A body that nobody reads does not block the connection: its sender's window stays shut, or its socket is not read.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol
from urllib.parse import unquote

from feed.hypercorn_adapter.connection import WIRE
from feed.hypercorn_adapter.headers import Headers
from feed.hypercorn_adapter.server_wire import ServerWire

_REFUSALS = frozenset({401, 403, 429})
"""Answers to those who may not do what they ask for, which no limit counts."""
_LET_GO: dict[str, Any] = {}
"""Stands in the place of a scope that nobody needs any more."""


class ExchangeProtocol(Protocol):
    """What an exchange needs of the protocol that it is part of."""

    server: Any
    """The connection (tcp.py)."""

    def send_head(self, exchange: "Exchange", status: int, headers: Headers) -> None:
        """Write the head of the response."""

    async def send_body(self, exchange: "Exchange", data: bytes) -> None:
        """Write a piece of the body when the client takes it; do nothing once the client is gone."""

    def send_end(self, exchange: "Exchange") -> None:
        """Write the end of the response."""

    def consumed(self, exchange: "Exchange", size: int) -> None:
        """Let the client send on: the application has taken `size` bytes of the request's body."""

    def exchange_over(self, exchange: "Exchange") -> None:
        """Go on: the application has returned. The response is incomplete unless `exchange.complete`."""


class Exchange:
    """One request and its response. Its protocol tells it what the client sends, and that the client has gone."""

    __slots__ = (
        "_carried", "_received", "_request_told", "_waiter", "closed", "complete", "method", "protocol", "received_whole",
        "scope", "started", "stream_id", "task", "wire",
    )  # fmt: skip

    def __init__(self, protocol: ExchangeProtocol, stream_id: int, scope: dict[str, Any], wire: ServerWire) -> None:
        self.protocol: Any = protocol
        self.stream_id = stream_id
        self.scope: dict[str, Any] = scope
        self.method: str = scope["method"]
        self.wire = wire
        self.task: asyncio.Task[None] | None = None
        self.closed = False
        """Whether nothing more can be sent: the client is gone."""
        self.started = False
        """Whether the head of the response was sent."""
        self.complete = False
        """Whether the response was sent to its end."""
        self.received_whole = False
        """Whether the request has come to its end."""
        self._received: deque[bytes] = deque()
        self._request_told = False  # whether the application knows that the request has ended
        self._waiter: asyncio.Future[None] | None = None
        self._carried: Coroutine[Any, Any, None] | None = None

    def begin(self, app: Any, *, paced: bool) -> None:
        """Call the application in a task; `paced`: in turn with the requests that came at the same time."""
        self.wire.carry = self._carry
        self.scope["extensions"][WIRE] = self.wire
        self.task = asyncio.get_running_loop().create_task(self._run(app, paced))

    def take_body(self, piece: bytes) -> None:
        """Take a piece of the request's body."""
        if self.complete or self.closed or self.scope is _LET_GO:  # nobody reads it
            if self.protocol is not None:
                self.protocol.consumed(self, len(piece))
            return
        self._received.append(piece)
        self._wake()

    def take_end(self) -> None:
        """Take the end of the request."""
        self.received_whole = True
        self._wake()

    def client_gone(self) -> None:
        """Tell the application and the wire that nobody reads the response any more."""
        if self.closed:
            return
        self.closed = True
        self.wire.close()
        self._discard()
        self._wake()

    async def receive(self) -> dict[str, Any]:
        """Return ASGI's next event of the request."""
        while True:
            if self._received:
                piece = self._received.popleft()
                self.protocol.consumed(self, len(piece))
                self._request_told = self.received_whole and not self._received
                return {"type": "http.request", "body": piece, "more_body": not self._request_told}
            if self.closed or self.complete:
                return {"type": "http.disconnect"}
            if self.received_whole and not self._request_told:
                self._request_told = True
                return {"type": "http.request", "body": b"", "more_body": False}
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def send(self, message: Any) -> None:
        """Send ASGI's next event of the response; what comes after the end of either is dropped."""
        if self.closed or self.complete:
            return
        if message["type"] == "http.response.start" and not self.started:
            status: int = message["status"]
            if status in _REFUSALS:
                self.protocol.server.rations.count()
            headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            for _, value in headers:
                if b"\n" in value or b"\r" in value or b"\0" in value:
                    raise ValueError("a header's value contains a line break or NUL")
            self.started = True
            self.protocol.send_head(self, status, headers)
        elif message["type"] == "http.response.body" and self.started:
            if body := message.get("body", b""):
                await self.protocol.send_body(self, body)
            if not message.get("more_body", False) and not self.closed:
                self.complete = True
                self.protocol.send_end(self)
                self._discard()
                self._wake()
        else:
            raise RuntimeError(f"the application sent {message['type']} out of turn")

    def _discard(self) -> None:
        """Let go of what nobody will read of the request. The client's windows open as if it had been read."""
        while self._received:
            self.protocol.consumed(self, len(self._received.popleft()))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _carry(self, body: Coroutine[Any, Any, None]) -> None:
        """Go on with `body` when the application has returned."""
        self._carried = body

    async def _run(self, app: Any, paced: bool) -> None:
        server = self.protocol.server
        try:
            if paced:
                await server.config.begin.admitted()
            if not self.closed:
                await app(self.scope, self.receive, self.send)
            del app
            if self._carried is not None:
                self._let_go()
                body, self._carried = self._carried, None
                await body
                del body
        except Exception:
            await server.config.log.exception("Error in ASGI Framework")
        finally:
            if self._carried is not None:
                self._carried.close()
                self._carried = None
            self._finish()

    def _finish(self) -> None:
        """End the response, as well as that is possible, and let go of everything: tracebacks may refer to this object."""
        protocol = self.protocol
        if not self.closed and not self.started:
            self.started = self.complete = True
            protocol.send_head(self, 500, [(b"content-length", b"0")])
            protocol.send_end(self)
        protocol.exchange_over(self)
        self._let_go()
        self.closed = True
        self.wire.close()
        self.protocol = self.task = None

    def _let_go(self) -> None:
        """Let go of what the application was called with: the scope refers to this exchange, which would keep both alive."""
        if self.scope is not _LET_GO:
            self.scope["extensions"].clear()
            self.scope = _LET_GO
            self._discard()


def scope_of(
    method: str, target: bytes, headers: Headers, http_version: str, server: Any, state: dict[str, Any]
) -> dict[str, Any]:
    """Return the ASGI scope of a request on the connection `server` (tcp.py); header names are in lower case.

    Raises UnicodeDecodeError for a target that is not ASCII.
    """
    path, _, query = target.partition(b"?")
    text = path.decode("ascii")
    return {
        "type": "http",
        "http_version": http_version,
        "asgi": {"spec_version": "2.1", "version": "3.0"},
        "method": method,
        "scheme": server.scheme,
        "path": unquote(text) if "%" in text else text,
        "raw_path": path,
        "query_string": query,
        "root_path": server.config.root_path,
        "headers": headers,
        "client": server.client,
        "server": server.address,
        "state": state.copy(),
        "extensions": {},
    }
