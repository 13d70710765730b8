"""Cross-origin resource sharing (the Fetch standard, 3.3): which other sites' pages may read the answers.

An origin that is named may read with a credential: its own cookie, too. `*` lets the pages of every other origin read what
they could fetch without one.
"""

from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = "GET, HEAD, POST, PUT, DELETE"
_HEADERS = "Authorization, Content-Type, Last-Event-ID, X-Request-ID"
_MAX_AGE = "600"
"""Seconds for which a browser may remember the answer to a preflight."""


class Cors:
    """Wraps an application: answers preflights itself, and adds the headers to every other answer, errors included."""

    def __init__(self, app: ASGIApp, origins: Iterable[str]) -> None:
        self._app = app
        self._named = frozenset(origins) - {"*"}
        self._any = "*" in frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        allowed = self._allowed(origin)
        if origin is not None and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            allowed |= _preflight(allowed)
            await send({"type": "http.response.start", "status": 204, "headers": _raw(allowed)})
            await send({"type": "http.response.body", "body": b""})
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                answer = MutableHeaders(scope=message)
                for name, value in allowed.items():
                    if name == "Vary":
                        answer.add_vary_header(value)
                    else:
                        answer[name] = value
            await send(message)

        await self._app(scope, receive, sent if allowed else send)

    def headers_for(self, origin: str | None) -> list[tuple[bytes, bytes]]:
        """Return the headers by which a browser lets a page of `origin` read an answer, or does not; as ASGI has them."""
        return _raw(self._allowed(origin))

    def _allowed(self, origin: str | None) -> dict[str, str]:
        """Return the headers by which a browser lets a page of `origin` read the answer, or does not."""
        vary = {"Vary": "Origin"} if self._named else {}  # otherwise the answer is the same for every origin
        if origin is None:
            return vary
        if origin in self._named:
            return {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true", **vary}
        return {"Access-Control-Allow-Origin": "*", **vary} if self._any else vary


def _preflight(allowed: dict[str, str]) -> dict[str, str]:
    """Return what a preflight is told besides; an origin that may not read is told nothing."""
    if "Access-Control-Allow-Origin" not in allowed:
        return {}
    return {
        "Access-Control-Allow-Methods": _METHODS, "Access-Control-Allow-Headers": _HEADERS,
        "Access-Control-Max-Age": _MAX_AGE,
    }  # fmt: skip


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
