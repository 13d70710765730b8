"""HEAD wherever GET works, OPTIONS, and the `Allow` header (RFC 9110, 9.3.2, 9.3.7 and 10.2.1)."""

from collections.abc import Sequence

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Receive, Scope, Send

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


_HEAD = "feed.head"


class Route(APIRoute):
    """A route that answers HEAD as it answers GET: the server leaves the body out. The OpenAPI document names GET alone."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Return how well a request fits this route."""
        match, child = super().matches(scope)
        return (Match.FULL if match is Match.PARTIAL and self._is_head(scope) else match), child

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._is_head(scope):
            scope = {**scope, "method": "GET", _HEAD: True}
        await super().handle(scope, receive, send)

    def _is_head(self, scope: Scope) -> bool:
        return scope["type"] == "http" and scope["method"] == "HEAD" and "GET" in (self.methods or ())


def is_head(scope: Scope) -> bool:
    """Whether a request that a `Route` handles as GET asked for the headers alone."""
    return _HEAD in scope


def allowed(routes: Sequence[BaseRoute], scope: Scope) -> list[str]:
    """Return the methods that any of some routes answers at the path of a request; what is mounted answers for itself."""
    found = [
        method
        for method in _METHODS
        if any(
            route.matches({**scope, "method": method})[0] is Match.FULL
            for route in routes
            if not isinstance(route, Mount)
        )
    ]
    return [*found, "OPTIONS"] if found else []
