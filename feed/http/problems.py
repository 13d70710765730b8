"""Problems: the one place where errors become answers of type `application/problem+json` (RFC 9457)."""

import asyncio
import math
from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from feed.errors import (
    DatabaseRefused,
    DatabaseUnavailable,
    Fault,
    FeedError,
    Forbidden,
    Invalid,
    NotFound,
    TooLarge,
    TooMany,
    TooSlow,
    Unauthorized,
    WrittenElsewhere,
)
from feed.http.methods import allowed
from feed.http.requests import route_of
from feed.hypercorn_adapter.connection import connection_of
from feed.model.complaint import complaints
from feed.model.frame import encode


class ProblemFault(BaseModel):
    """What is wrong with one field; `index` is the place of the posting in the request, from 0."""

    field: str
    message: str
    index: int | None = None


class Problem(BaseModel):
    """The body of an answer that reports an error."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[ProblemFault] = []


_TITLES = {
    400: "Bad request", 401: "Unauthorized", 403: "Forbidden", 404: "Not found", 405: "Method not allowed",
    408: "Request timeout", 409: "Written elsewhere", 413: "Too large", 415: "Unsupported media type", 422: "Not valid",
    429: "Too many requests", 500: "Internal error", 503: "Not available now",
}  # fmt: skip
_FAULTS = 100
"""Faults that an answer names."""
_INSTEAD = {
    "after": dict.fromkeys(("next", "cursor", "page", "offset"), "pass the `next` of the page before as `after`"),
    "last_event_id": dict.fromkeys(
        ("next", "cursor", "after", "id"), "pass the id of the last event as `last_event_id`"
    ),
}
"""By a parameter that a route takes: the names that clients try instead of it, and what to tell them."""
_READ_OUT_BYTES = 8 * 1024 * 1024
_READ_OUT_SECONDS = 2.0
"""What is read of a request that is refused, before the answer, under a server that would lose the answer otherwise."""
_STATUS: dict[type[FeedError], int] = {
    Invalid: 422, NotFound: 404, TooLarge: 413, DatabaseUnavailable: 503, DatabaseRefused: 503, Unauthorized: 401,
    Forbidden: 403, TooMany: 429, TooSlow: 408, WrittenElsewhere: 409,
}  # fmt: skip


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route for its problems. With a model, FastAPI would promise application/json as well."""
    content = {"application/problem+json": {"schema": deepcopy(_schema())}}
    return {status: {"description": _TITLES[status], "content": content} for status in statuses}


@cache
def _schema() -> dict[str, Any]:
    """Return the JSON Schema of a problem, made once: each of the routes documents its problems."""
    schema = Problem.model_json_schema()
    schema["properties"]["errors"]["items"] = schema.pop("$defs")["ProblemFault"]
    return schema


def problem(status: int, detail: str, faults: Iterable[Fault] = (), headers: dict[str, str] | None = None) -> Response:
    """Return the response for a problem."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
    }
    errors = [
        {"field": fault.field, "message": fault.message} | ({} if fault.index is None else {"index": fault.index})
        for fault in faults
    ]
    if errors:
        body["errors"] = errors
    return Response(encode(body), status, headers, "application/problem+json")


async def _read_out(request: Request) -> None:
    """Read on for a little while before the answer, where the server would lose it otherwise.

    Under `feed serve` the answer leaves at once. A plain server closes a connection in the middle of a request, so that an
    HTTP/1.1 client that is still sending may meet a reset instead of the answer; and plain Hypercorn drops an HTTP/2
    connection, with every stream on it, when data comes for a request that was answered (H2Protocol, DataReceived).
    """
    if connection_of(request.scope).lingers:
        return
    left = _READ_OUT_BYTES
    try:
        async with asyncio.timeout(_READ_OUT_SECONDS):
            async for piece in request.stream():
                left -= len(piece)
                if left < 0:
                    return
    except (RuntimeError, ClientDisconnect, TimeoutError):  # it was read to its end; it never will be
        pass


async def _nobody_there(_: Request, __: Exception) -> Response:
    """Answer a client that left in the middle of its request; nobody reads the answer."""
    return Response(status_code=400)


async def _feed_error(request: Request, error: Exception) -> Response:
    await _read_out(request)
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    faults = error.faults if isinstance(error, Invalid) else ()
    detail = str(error)
    if isinstance(error, DatabaseUnavailable | DatabaseRefused) and error.__cause__ is not None:
        # The driver's own words name hosts and users.
        detail = "the database is not available now; the log of the service says why"
    return problem(status, detail, faults, _headers(error, status))


def _headers(error: Exception, status: int) -> dict[str, str] | None:
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, TooMany):
        return {"Retry-After": str(max(1, math.ceil(error.seconds)))}
    return {"Retry-After": "5"} if status == 503 else None


async def _not_valid(request: Request, error: Exception) -> Response:
    await _read_out(request)
    entries = error.errors()[:_FAULTS] if isinstance(error, RequestValidationError) else []
    known = _parameters(request)
    instead = next((hints for name, hints in _INSTEAD.items() if name in known), {})
    faults = [
        Fault(str((*entry["loc"], "")[1] or entry["loc"][0]), message)
        for entry, message in zip(entries, complaints(entries, "parameter", known, instead), strict=True)
    ]
    detail = f"{faults[0].field}: {faults[0].message}" if faults else "the request is not valid"
    return problem(422, detail, faults)


def _parameters(request: Request) -> list[str]:
    """Return the names of the query parameters that a request's route takes."""
    operations = request.app.openapi()["paths"].get(route_of(request.scope), {})
    described = operations.get(request.method.lower(), {}).get("parameters", ())
    return [parameter["name"] for parameter in described if parameter["in"] == "query"]


async def _http(request: Request, error: Exception) -> Response:
    await _read_out(request)
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 400:  # FastAPI's status for a body that is not UTF-8
        fault = Fault("body", "must be valid JSON")
        return problem(422, f"{fault.field}: {fault.message}", [fault])
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    if status == 405:
        if methods := allowed(request.app.routes, request.scope):
            headers["Allow"] = ", ".join(methods)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
    detail = str(error.detail) if isinstance(error, HTTPException) else "internal error"
    return problem(status, detail, headers=headers)


async def _crash(_: Request, __: Exception) -> Response:
    return problem(500, "internal error: the log of the service says more")


async def answer_to(request: Request, error: Exception) -> Response:
    """Return the answer to an error of a request that did not come through FastAPI."""
    if isinstance(error, FeedError):
        return await _feed_error(request, error)
    return await (_not_valid if isinstance(error, RequestValidationError) else _crash)(request, error)


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem."""
    app.add_exception_handler(FeedError, _feed_error)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _nobody_there)
    app.add_exception_handler(Exception, _crash)
