"""An exchange: one request and its response, Hypercorn's HTTPStream with a wire in the scope.

What it adds (Hypercorn 0.18):
- `scope["extensions"]["feed.wire"]`: the wire, for whoever wants to write the body by it.
- The body may outlive the call of the application: an idle stream then costs a task and not a stack of middlewares.
- The application is not called for a client that left before its turn came.
- The wire learns that the client is gone. Nobody need wait for `http.disconnect`, which takes a task.
- A body that nobody reads does not block the connection: Hypercorn puts its pieces into a queue of ten and waits, on
  HTTP/2 with every other stream of that client behind it, and on HTTP/1.1 without ever seeing that the client left.
"""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from hypercorn.protocol.events import Body, EndBody, Event, Request, StreamClosed
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream

from feed.hypercorn_adapter.connection import WIRE
from feed.hypercorn_adapter.refusals import Rations
from feed.hypercorn_adapter.server_wire import ServerWire

if TYPE_CHECKING:
    from hypercorn.typing import AppWrapper, ASGISendEvent

_REFUSALS = frozenset({401, 403, 429})
"""Answers to those who may not do what they ask for, which no limit counts."""


async def _nowhere(_: Event) -> None:
    """Stand for the protocol of an exchange that is over: tracebacks of the application may outlive it for a while."""


class Exchange(HTTPStream):
    """One request and its response. Its protocol sets `wire`, if it has one, before the request comes."""

    wire: ServerWire | None = None
    rations: Rations | None = None
    """What a refusal is counted against; set by its protocol, too."""
    app_put: Any = None  # the base class never sets it where the request is refused
    _carried = False

    async def handle(self, event: Event) -> None:
        """Handle what the client sent."""
        if isinstance(event, Body | EndBody) and (self.app_put is None or self.state is ASGIHTTPState.CLOSED):
            return
        if isinstance(event, StreamClosed):
            if self.wire is not None:
                self.wire.close()
            self._release()
        if isinstance(event, Request):
            self.app = partial(self._serve, self.app)
        await super().handle(event)
        if isinstance(event, Request) and self.wire is not None:
            # The application's task exists by now and has not run yet.
            cast(dict[str, Any], self.scope["extensions"])[WIRE] = self.wire
            self.wire.carry = self._carry

    async def _serve(self, app: "AppWrapper", *given: Any) -> None:
        """Call the application, unless the client left before its turn came."""
        self.app = app
        if not self.closed:
            await app(*given)

    async def app_send(self, message: "ASGISendEvent | None") -> None:
        """Handle a message of the application; None says that it has returned."""
        if (message is None and self._carried) or (message is not None and self.closed):
            return
        if message is not None and message["type"] == "http.response.start" and message["status"] in _REFUSALS:
            cast(Rations, self.rations).count()
        await super().app_send(message)
        if message is None:
            self._let_go()
            self.send, self.wire = _nowhere, None
        elif self.state is ASGIHTTPState.CLOSED:
            self._release()

    def _carry(self, body: Coroutine[Any, Any, None]) -> None:
        """Go on with `body` when the application has returned, and let go of all that it no longer needs."""
        self._carried = True
        self._let_go()
        self.task_group.spawn(self._run, body)

    async def _run(self, body: Coroutine[Any, Any, None]) -> None:
        try:
            await body
        except Exception:
            await self.config.log.exception("the body of a response failed")
        finally:
            self._carried = False
            await self.app_send(None)

    def _let_go(self) -> None:
        """Let go of what the application was called with: the scope refers to this exchange, which would keep both alive."""
        self._release()
        self.app_put = None
        cast(dict[str, Any], self.scope["extensions"]).clear()
        self.scope = cast(
            Any, {"extensions": {}} | {name: self.scope[name] for name in ("type", "method", "http_version")}
        )

    def _release(self) -> None:
        """Let go of a body that nobody will read, and of whoever waits to put more of it."""
        queue: asyncio.Queue[Any] | None = getattr(self.app_put, "__self__", None)
        while queue is not None and not queue.empty():
            queue.get_nowait()
