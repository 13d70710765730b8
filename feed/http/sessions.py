"""Sessions and tickets: how a browser, whose `EventSource` can set no header, reads a feed that needs a credential."""

import time
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, ValidationError
from starlette.responses import Response

from feed.access.grant import OPEN, Scope
from feed.access.sessions import COOKIE, claims_of
from feed.access.tickets import digest_of, new_ticket
from feed.database.access import AccessStore
from feed.errors import Fault, Invalid, TooLarge, Unauthorized
from feed.http.gate import Gate
from feed.http.intake import pieces
from feed.http.origin import Origins
from feed.http.problems import documented
from feed.model.frame import encode
from feed.model.query import FilterQuery
from feed.settings.settings import Settings


class SessionInfo(BaseModel):
    """Whose session it is. `expires_at` is null where no end is known."""

    name: str
    scopes: list[Scope]
    filter: str = Field(description="The part of the feed that it shows, as a query string; empty is everything.")
    expires_at: datetime | None


class Ticket(BaseModel):
    """What opens one stream."""

    ticket: str
    url: str = Field(description="Where to open it, such as `new EventSource(url)`.")
    expires_in: float = Field(description="Seconds until which it must have been used.")


def routes(gate: Gate, store: AccessStore, origins: Origins, settings: Settings) -> APIRouter:
    """The routes over one gate."""
    router = APIRouter(prefix="/v1", tags=["access"])
    known_origin = Depends(origins.known)

    @router.post(
        "/session", response_model=SessionInfo, responses=documented(401, 403, 429, 503), dependencies=[known_origin]
    )
    async def sign_in(request: Request) -> Response:
        """Exchange a credential (`Authorization: Bearer ...`) for a cookie, which `EventSource` sends by itself.

        Cross-origin: `new EventSource(url, {withCredentials: true})`, from an origin that the service allows by name.
        """
        caller = await gate.admit(request, Scope.READ)
        if caller.grant.name == OPEN.name:  # what is open now need not be when the cookie comes back
            raise Unauthorized(
                "there is nothing to sign in with: send `Authorization: Bearer <key or token>`", "missing"
            )
        grant, cookie = await gate.session(caller.grant)
        response = _session(grant)
        response.set_cookie(
            COOKIE, cookie, max_age=max(0, round((grant.expires_at or 0) - time.time())), path="/", httponly=True,
            secure=caller.secure or settings.session_same_site == "none", samesite=settings.session_same_site,
        )  # fmt: skip
        return response

    @router.get("/session", response_model=SessionInfo, responses=documented(401, 403, 429, 503))
    async def read_session(request: Request) -> Response:
        """Whose credential this is, and what it is good for."""
        return _session((await gate.admit(request, Scope.READ)).grant)

    @router.delete("/session", status_code=204, responses=documented(403, 503), dependencies=[known_origin])
    async def sign_out(request: Request) -> Response:
        """End the session: its cookie is worth nothing from now on, and its streams end."""
        await gate.end_session(request)
        response = Response(status_code=204)
        secure = gate.secure(request) or settings.session_same_site == "none"
        response.delete_cookie(COOKIE, path="/", httponly=True, secure=secure, samesite=settings.session_same_site)
        return response

    @router.post(
        "/tickets", status_code=201, response_model=Ticket, responses=documented(401, 403, 408, 413, 422, 429, 503),
        dependencies=[known_origin], openapi_extra=_TICKET_BODY,
    )  # fmt: skip
    async def issue_ticket(request: Request) -> Response:
        """A ticket for one stream with this filter: for `new EventSource(url)` where no cookie can go.

        It must be used within seconds, once. Its stream may come back with its last id, as browsers do by themselves, from
        the same address and for a bounded time.
        """
        caller = await gate.admit(request, Scope.READ)
        query = await _filters(request, settings)
        query.canonical(settings.filter_values)
        ticket, filters = new_ticket(), query.encoded()
        await store.add_ticket(digest_of(ticket), claims_of(caller.grant), filters, settings.ticket_age)
        url = f"/v1/jobs/stream?{query.encoded(ticket=ticket)}"
        body = {"ticket": ticket, "url": url, "expires_in": settings.ticket_age}
        return Response(encode(body), 201, _SECRET, "application/json")

    return router


_SECRET = {"Cache-Control": "no-store"}
_TICKET_BYTES = 64 * 1024
"""A ticket's filters, as JSON."""
_TICKET_BODY = {"requestBody": {"content": {"application/json": {"schema": FilterQuery.model_json_schema()}}}}


async def _filters(request: Request, settings: Settings) -> FilterQuery:
    """The filters that a ticket is asked for; no body is no filter. Raises TooLarge or Invalid."""
    body = b""
    async for piece in pieces(request, settings):
        body += piece
        if len(body) > _TICKET_BYTES:
            raise TooLarge(f"a ticket's filters may have {_TICKET_BYTES:,} bytes")
    try:
        return FilterQuery.model_validate_json(body) if body.strip() else FilterQuery()
    except ValidationError as error:
        faults = [Fault(str((*one["loc"], "body")[0]), str(one["msg"])) for one in error.errors()]
        raise Invalid(faults[:100]) from None


def _session(grant: Any) -> Response:
    ends = None if grant.expires_at is None else datetime.fromtimestamp(grant.expires_at, UTC).isoformat()
    body = {"name": grant.name, "scopes": sorted(grant.scopes), "filter": grant.filter_text, "expires_at": ends}
    return Response(encode(body), headers=_SECRET, media_type="application/json")
