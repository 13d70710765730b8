"""The routes of the postings: list, read, write and close."""

import re
from dataclasses import asdict
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from feed.access.grant import Scope
from feed.database.jobs import JobStore
from feed.errors import Fault, Invalid
from feed.http.conditional import answer
from feed.http.gate import Gate
from feed.http.intake import Intake, Spool, bounded, check, pieces, read_json, take_array, take_lines
from feed.http.methods import Route
from feed.http.origin import same_site
from feed.http.problems import documented
from feed.model.complaint import PAGE_MARK, PAGE_MARK_BEFORE, complaint
from feed.model.frame import encode
from feed.model.page import Mark, Page, Sort, parse_mark
from feed.model.posting import Posting, PostingIn, PostingWhole
from feed.model.query import FilterQuery
from feed.settings.settings import Settings

_ID = Annotated[int, Path(ge=1, le=2**63 - 1)]


class ListQuery(FilterQuery):
    """The parameters of a list: the filters, and the page."""

    open: Literal["true", "false", "any"] = Field(default="true", description="Open postings, closed ones, or both.")
    sort: Sort = Field(
        default="arrived",
        description="The newest first: in the order in which the feed got them, or by `posted_at`.",
    )
    limit: int = Field(default=50, ge=1, le=500)
    after: str | None = Field(
        default=None, description="The `next` of the page before, such as `j42`: the page goes on after it.",
        pattern=PAGE_MARK,
    )  # fmt: skip
    before: str | None = Field(
        default=None, description="The `previous` of the page after, such as `j42`: the page ends before it.",
        pattern=PAGE_MARK_BEFORE,
    )  # fmt: skip
    count: bool = Field(default=False, description="Whether to say in `about` how many postings match, on all pages.")

    def page(self) -> Page:
        """Return which part of the list is wanted. Raises Invalid for a mark of no list, or of one sorted otherwise."""
        marks: dict[str, Mark | None] = {"after": None, "before": None}
        for name, text, pattern in (("after", self.after, PAGE_MARK), ("before", self.before, PAGE_MARK_BEFORE)):
            marks[name] = None if text is None else parse_mark(text, self.sort)
            if text is None or marks[name] is not None:
                continue
            if parse_mark(text, "posted" if self.sort == "arrived" else "arrived") is not None:
                raise Invalid([Fault(name, f"belongs to a list that is sorted otherwise than `sort={self.sort}`")])
            raise Invalid([Fault(name, complaint({"type": "string_pattern_mismatch", "ctx": {"pattern": pattern}}))])
        if self.after is not None and self.before is not None:
            raise Invalid([Fault("before", "cannot be given together with `after`")])
        wanted = {"true": True, "false": False, "any": None}[self.open]
        return Page(wanted, self.sort, marks["after"], marks["before"], self.limit, self.count)


class StreamHint(BaseModel):
    """Where a stream with the same filters goes on from a list without a gap."""

    last_event_id: str
    url: str


class JobList(BaseModel):
    """One page of postings."""

    jobs: list[Posting]
    next: str | None = Field(
        description="What the parameter `after` takes to read the next page; null on the last one.", examples=["j42"]
    )
    previous: str | None = Field(
        description="What the parameter `before` takes to read the page before; null on the first one.",
        examples=["j91"],
    )
    about: int | None = Field(
        default=None,
        description="With `count=true`: how many postings match, on all pages. Above a few thousand, an estimate or a lower "
        "bound; null where it is not known yet, because the postings are still being indexed.",
        examples=[1200],
    )
    stream: StreamHint


class WrittenMany(BaseModel):
    """How many postings of a write were new, changed or unchanged."""

    created: int
    updated: int
    unchanged: int


class RejectedFault(BaseModel):
    """What is wrong with one field of a posting that was not written."""

    field: str
    message: str
    index: int = Field(description="The place of the posting in the request, from 0.")
    line: int | None = Field(default=None, description="Of NDJSON: the line, from 1.")


class WrittenSome(WrittenMany):
    """The answer to `on_error=skip`: what was written, and what is wrong with the rest."""

    rejected: int = Field(description="Postings that were not valid and were not written.")
    errors: list[RejectedFault] = Field(description="What is wrong with them: the first hundred faults.")


_OnError = Annotated[
    Literal["abort", "skip"],
    Query(
        description="What to do where postings of an array or of NDJSON are not valid: write none of the request, or write "
        "the others and list the faults in the answer. A posting that is sent alone is refused either way, and so is a "
        "request of which the database itself refuses more than a hundred."
    ),
]


def _body(*media: str) -> dict[str, Any]:
    """Return the OpenAPI description of a body that the route reads itself."""
    one = PostingIn.model_json_schema()
    many = {"anyOf": [one, {"type": "array", "items": one}]}
    content: dict[str, Any] = {"application/json": {"schema": many if len(media) > 1 else one}}
    if "application/x-ndjson" in media:
        content["application/x-ndjson"] = {"schema": {"type": "string"}, "itemSchema": one}
    return {"requestBody": {"required": True, "content": content}}


def routes(store: JobStore, gate: Gate, settings: Settings) -> APIRouter:
    """Return the routes of the postings."""
    router = APIRouter(prefix="/v1/jobs", tags=["postings"], route_class=Route)

    @router.get("", response_model=JobList, responses=documented(401, 403, 422, 429, 503))
    async def list_jobs(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
        """List the postings that match, the newest first. A stream from `stream.url` goes on from there without a gap.

        A change that happens in between may be in both: `version` tells which state is newer.
        """
        caller = await gate.admit(request, Scope.READ)
        wanted = query.canonical(settings.requests.filter_values).narrowed(caller.grant.filter)
        page = await store.list(wanted, query.page())
        last = f"{page.epoch}.{page.head}"
        stream = {"last_event_id": last, "url": f"/v1/jobs/stream?{query.encoded(last_event_id=last)}"}
        body = {
            "jobs": [orjson.Fragment(job) for job in page.jobs],
            "next": None if page.next is None else str(page.next),
            "previous": None if page.previous is None else str(page.previous),
            **({"about": page.about} if query.count else {}),
            "stream": stream,
        }
        return answer(request, encode(body), "application/json")

    @router.get("/{job_id}", response_model=PostingWhole, responses=documented(401, 403, 404, 422, 429, 503))
    async def read_job(request: Request, job_id: _ID) -> Response:
        """Read one posting with its description."""
        caller = await gate.admit(request, Scope.READ)
        return answer(request, await store.read(job_id, caller.grant.filter), "application/json")

    @router.post(
        "",
        response_model=PostingWhole | WrittenMany | WrittenSome,
        responses={**documented(401, 403, 408, 409, 413, 415, 422, 429, 503), 201: {"model": PostingWhole}},
        dependencies=[Depends(same_site)],
        openapi_extra=_body("application/json", "application/x-ndjson"),
    )
    async def write_jobs(request: Request, on_error: _OnError = "abort") -> Response:
        """Write one posting, an array of them, or NDJSON, in one transaction; idempotent on `source` and `external_id`.

        All are written or none, unless `on_error=skip`. A posting without `external_id` is new each time. Without
        `closed_at`, a posting stays open or closed as it is.
        """
        await gate.admit(request, Scope.WRITE)
        kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if kind in ("application/x-ndjson", "application/ndjson", "application/jsonl"):
            with Spool() as spool:
                intake = Intake(spool, skip=on_error == "skip")
                await take_lines(request, intake, settings.requests)
                written = await store.write_batches(spool, skip=intake.skip)
        elif kind == "application/json" or re.fullmatch(r"application/[\w.-]+\+json", kind):
            body = await read_json(request, settings.requests)
            if not isinstance(body, list):
                return await _put(check(bounded(body, settings.requests)))
            with Spool() as spool:
                intake = Intake(spool, skip=on_error == "skip")
                await take_array(body, intake, settings.requests)
                written = await store.write_batches(spool, skip=intake.skip)
        else:
            raise HTTPException(
                415, f"the media type {kind} is not supported: send application/json or application/x-ndjson"
            )
        counts: dict[str, Any] = {
            "created": written.created, "updated": written.updated, "unchanged": written.unchanged,
        }  # fmt: skip
        if intake.skip:
            intake.refused(written.refused)
            errors = [
                {name: value for name, value in asdict(fault).items() if value is not None} for fault in intake.faults
            ]
            counts |= {"rejected": intake.rejected, "errors": errors}
        return Response(encode(counts), media_type="application/json")

    @router.post(
        "/{job_id}/close",
        response_model=PostingWhole,
        responses=documented(401, 403, 404, 408, 409, 422, 429, 503),
        dependencies=[Depends(same_site)],
    )
    async def close_job(job_id: _ID, request: Request) -> Response:
        """Close a posting. One that is closed already stays as it is."""
        caller = await gate.admit(request, Scope.WRITE)
        async for _ in pieces(request, settings.requests):
            pass
        await store.read(job_id, caller.grant.filter)  # a posting that the credential may not see is answered with 404
        await store.close(job_id)
        return Response(await store.read(job_id), media_type="application/json")

    @router.put(
        "/{source}/{external_id:path}",
        response_model=PostingWhole,
        responses={**documented(401, 403, 408, 409, 413, 422, 429, 503), 201: {"model": PostingWhole}},
        dependencies=[Depends(same_site)],
        openapi_extra=_body("application/json"),
    )
    async def put_job(source: str, external_id: str, request: Request) -> Response:
        """Write the posting with this `source` and `external_id`."""
        await gate.admit(request, Scope.WRITE)
        body = await read_json(request, settings.requests)
        if isinstance(body, dict):
            for name, value in (("source", source), ("external_id", external_id)):
                if body.setdefault(name, value) != value:
                    raise Invalid([Fault(name, f"is {body[name]!r} in the body, but {value!r} in the URL")])
        return await _put(check(bounded(body, settings.requests)))

    async def _put(posting: PostingIn) -> Response:
        stored = await store.put(posting)
        status, where = 201 if stored.created else 200, {"Location": f"/v1/jobs/{stored.id}"}
        return Response(stored.json, status, where, "application/json")

    return router
