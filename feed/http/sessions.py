"""The routes of sessions and tickets, which let a browser's `EventSource` read a feed that needs a credential."""

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
from feed.errors import Invalid, TooLarge, Unauthorized
from feed.http.gate import Gate
from feed.http.intake import pieces
from feed.http.methods import Route
from feed.http.origin import Origins
from feed.http.problems import documented
from feed.model.frame import encode
from feed.model.query import FilterQuery, filter_faults
from feed.settings.http import RequestSettings
from feed.settings.settings import Settings


class SessionInfo(BaseModel):
    """Whose credential it is, and what it allows. `expires_at` is null if it does not expire."""

    name: str
    scopes: list[Scope]
    filter: str = Field(description="The part of the feed that it shows, as a query string; empty is everything.")
    expires_at: datetime | None


class Ticket(BaseModel):
    """A ticket, which opens one stream."""

    ticket: str
    url: str = Field(description="Where to open it, such as `new EventSource(url)`.")
    expires_in: float = Field(description="Seconds until which it must have been used.")


def routes(gate: Gate, store: AccessStore, origins: Origins, settings: Settings) -> APIRouter:
    """Return the routes of sessions and tickets."""
    router = APIRouter(prefix="/v1", tags=["access"], route_class=Route)
    known_origin = Depends(origins.known)

    @router.post(
        "/session", response_model=SessionInfo, responses=documented(401, 403, 429, 503), dependencies=[known_origin]
    )
    async def sign_in(request: Request) -> Response:
        """Exchange a credential (`Authorization: Bearer ...`) for a cookie, which `EventSource` sends by itself.

        Cross-origin: `new EventSource(url, {withCredentials: true})`, from an origin that the service allows by name.
        """
        caller = await gate.admit(request, Scope.READ)
        if caller.grant.name == OPEN.name:  # reading may no longer be open when the cookie comes back
            raise Unauthorized(
                "the request has no credential to sign in with: send `Authorization: Bearer <key or token>`", "missing"
            )
        grant, cookie = await gate.session(caller.grant)
        response = _session(grant)
        response.set_cookie(
            COOKIE, cookie, max_age=max(0, round((grant.expires_at or 0) - time.time())), path="/", httponly=True,
            secure=caller.secure or settings.access.session_same_site == "none", samesite=settings.access.session_same_site,
        )  # fmt: skip
        return response

    @router.get("/session", response_model=SessionInfo, responses=documented(401, 403, 429, 503))
    async def read_session(request: Request) -> Response:
        """Tell whose credential this is, and what it allows."""
        return _session((await gate.admit(request, Scope.READ)).grant)

    @router.delete("/session", status_code=204, responses=documented(403, 503), dependencies=[known_origin])
    async def sign_out(request: Request) -> Response:
        """End the session: its cookie is no longer valid, and its streams end."""
        await gate.end_session(request)
        response = Response(status_code=204)
        secure = gate.secure(request) or settings.access.session_same_site == "none"
        response.delete_cookie(
            COOKIE, path="/", httponly=True, secure=secure, samesite=settings.access.session_same_site
        )
        return response

    @router.post(
        "/tickets", status_code=201, response_model=Ticket, responses=documented(401, 403, 408, 413, 422, 429, 503),
        dependencies=[known_origin], openapi_extra=_TICKET_BODY,
    )  # fmt: skip
    async def issue_ticket(request: Request) -> Response:
        """Issue a ticket for one stream with this filter: for `new EventSource(url)` where no cookie can be sent.

        It must be used within `expires_in` seconds, once. Its stream may come back with its last id, as browsers do by
        themselves, from the same address and for a limited time. A stream that is refused does not use the ticket up.
        """
        caller = await gate.admit(request, Scope.READ)
        query = await _filters(request, settings.requests)
        query.canonical(settings.requests.filter_values)
        ticket, filters = new_ticket(), query.encoded()
        await store.add_ticket(digest_of(ticket), claims_of(caller.grant), filters, settings.access.ticket_age)
        url = f"/v1/jobs/stream?{query.encoded(ticket=ticket)}"
        body = {"ticket": ticket, "url": url, "expires_in": settings.access.ticket_age}
        return Response(encode(body), 201, _SECRET, "application/json")

    return router


_SECRET = {"Cache-Control": "no-store"}
_TICKET_BYTES = 64 * 1024
"""Bytes that the filters of a ticket may have, as JSON."""
_TICKET_BODY = {"requestBody": {"content": {"application/json": {"schema": FilterQuery.model_json_schema()}}}}


async def _filters(request: Request, settings: RequestSettings) -> FilterQuery:
    """Return the filters of a ticket from the request; without a body there are none. Raises TooLarge or Invalid."""
    body = b""
    async for piece in pieces(request, settings):
        body += piece
        if len(body) > _TICKET_BYTES:
            raise TooLarge(f"the filters of a ticket may have at most {_TICKET_BYTES:,} bytes")
    try:
        return FilterQuery.model_validate_json(body) if body.strip() else FilterQuery()
    except ValidationError as error:
        raise Invalid(filter_faults(error)) from None


def _session(grant: Any) -> Response:
    ends = None if grant.expires_at is None else datetime.fromtimestamp(grant.expires_at, UTC).isoformat()
    body = {"name": grant.name, "scopes": sorted(grant.scopes), "filter": grant.filter_text, "expires_at": ends}
    return Response(encode(body), headers=_SECRET, media_type="application/json")
