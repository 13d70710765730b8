"""The route of the sources, for operators: which public boards the feed fetches, and how each of them is doing."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from feed.access.grant import Scope
from feed.database.sources import SourceStore
from feed.http.gate import Gate
from feed.http.methods import Route
from feed.http.problems import documented
from feed.model.frame import encode
from feed.model.source import State
from feed.model.source_document import sources_document

_LIST = """The public boards that the feed fetches, in the order of their names. Needs the scope `admin`.

`feed source` adds, pauses and removes them. Times are RFC 3339."""


class Changes(BaseModel):
    """Postings that were posted, updated and closed."""

    posted: int
    updated: int
    closed: int


class LastChange(Changes):
    """What the last run that changed any posting did."""

    at: str


class Failing(BaseModel):
    """Why the last run failed, and how many have in a row."""

    failures: int
    error: str


class Suspect(BaseModel):
    """Why the newest list is not believed, so that nothing is closed, and since when."""

    since: str
    why: str


class FieldFault(BaseModel):
    """One thing wrong with one field."""

    field: str
    message: str


class BadPosting(BaseModel):
    """A posting of the newest list that could not be read, and was left out."""

    external_id: str | None
    faults: list[FieldFault]


class SourceEntry(BaseModel):
    """One source."""

    name: str = Field(description="The `source` of its postings.")
    state: State
    host: str
    url: str | None = Field(description="What is fetched instead of the adapter's own address.")
    company: str | None = Field(description="As the board told it.")
    attribution: str | None = Field(description="What must be named beside its postings.")
    syndicate: bool = Field(description="Whether its postings may be passed on to other boards.")
    running: bool
    added_at: str
    paused_at: str | None
    last_try_at: str | None
    last_success_at: str | None
    next_try_at: str | None
    open: int = Field(description="Open postings when the last run ended.")
    last_change: LastChange | None
    total: Changes = Field(description="Since the source was added.")
    failing: Failing | None
    suspect: Suspect | None
    accepted: bool = Field(description="Whether the next complete list is believed, whatever is suspect about it.")
    bad: int = Field(description="Postings of the newest list that could not be read.")
    faults: list[BadPosting] = Field(description="The first of these.")


class Sources(BaseModel):
    """All sources, as they were at one time."""

    at: str
    sources: list[SourceEntry]


def routes(store: SourceStore, gate: Gate) -> APIRouter:
    """Return the route that lists the sources."""
    router = APIRouter(prefix="/v1/sources", tags=["operators"], route_class=Route)

    @router.get("", response_model=Sources, responses=documented(401, 403, 503), description=_LIST)
    async def list_sources(request: Request) -> Response:
        await gate.admit(request, Scope.ADMIN)
        body = sources_document(await store.list(), datetime.now(UTC))
        return Response(encode(body), media_type="application/json", headers={"Cache-Control": "no-store"})

    return router
