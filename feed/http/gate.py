"""The gate: every request passes here and learns who it is from, or is refused."""

from fastapi import Request

from feed.access.caller import Caller
from feed.access.grant import OPEN, Scope
from feed.settings import Settings


class Gate:
    """Turns a request's credential into a caller."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def admit(self, request: Request, scope: Scope) -> Caller:
        """The caller, if it may do what `scope` is for; raises Unauthorized, Forbidden or DatabaseUnavailable."""
        client = request.scope.get("client")
        return Caller(OPEN, client[0] if client else "", f"HTTP/{request.scope['http_version']}")
