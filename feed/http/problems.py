"""Problems: the one place where errors become `application/problem+json` (RFC 9457)."""

import asyncio
import math
from collections.abc import Iterable
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
)
from feed.hypercorn_adapter.connection import connection_of
from feed.model.frame import encode


class ProblemFault(BaseModel):
    """One bad field; `index` is the item's place in the request, from 0."""

    field: str
    message: str
    index: int | None = None


class Problem(BaseModel):
    """What an error answers with."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[ProblemFault] = []


_TITLES = {
    400: "Bad request", 401: "Unauthorized", 403: "Forbidden", 404: "Not found", 405: "Method not allowed",
    408: "Request timeout", 413: "Too large", 415: "Unsupported media type", 422: "Not valid", 429: "Too many requests",
    500: "Internal error", 503: "Not available now",
}  # fmt: skip
_READ_OUT_BYTES = 8 * 1024 * 1024
_READ_OUT_SECONDS = 2.0
"""What is read of a request that is refused, before the answer, under a server that would lose the answer otherwise."""
_STATUS: dict[type[FeedError], int] = {
    Invalid: 422, NotFound: 404, TooLarge: 413, DatabaseUnavailable: 503, DatabaseRefused: 503, Unauthorized: 401,
    Forbidden: 403, TooMany: 429, TooSlow: 408,
}  # fmt: skip


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route's `responses` say of its problems; a model would have FastAPI promise application/json too."""
    schema = Problem.model_json_schema()
    schema["properties"]["errors"]["items"] = schema.pop("$defs")["ProblemFault"]
    content = {"application/problem+json": {"schema": schema}}
    return {status: {"description": _TITLES[status], "content": content} for status in statuses}


def problem(status: int, detail: str, faults: Iterable[Fault] = (), headers: dict[str, str] | None = None) -> Response:
    """The response for a problem."""
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
    """The client left in the middle of its request: nobody reads this."""
    return Response(status_code=400)


async def _feed_error(request: Request, error: Exception) -> Response:
    await _read_out(request)
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    faults = error.faults if isinstance(error, Invalid) else ()
    detail = str(error)
    if isinstance(error, DatabaseUnavailable | DatabaseRefused) and error.__cause__ is not None:
        detail = "the database is not to be had now; the service's log says why"  # the driver names hosts and users
    return problem(status, detail, faults, _headers(error, status))


def _headers(error: Exception, status: int) -> dict[str, str] | None:
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, TooMany):
        return {"Retry-After": str(max(1, math.ceil(error.seconds)))}
    return {"Retry-After": "5"} if status == 503 else None


async def _not_valid(request: Request, error: Exception) -> Response:
    await _read_out(request)
    faults = []
    for entry in error.errors() if isinstance(error, RequestValidationError) else ():
        field = str(entry["loc"][1] if len(entry["loc"]) > 1 else entry["loc"][0])
        unknown = entry["type"] == "extra_forbidden"
        message = "is no parameter here; see /docs" if unknown else str(entry["msg"]).removeprefix("Value error, ")
        faults.append(Fault(field, message))
    detail = f"{faults[0].field}: {faults[0].message}" if faults else "the request is not valid"
    return problem(422, detail, faults)


async def _http(request: Request, error: Exception) -> Response:
    await _read_out(request)
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 400:  # FastAPI's word for a body that is not even UTF-8
        fault = Fault("body", "is not valid JSON")
        return problem(422, f"{fault.field}: {fault.message}", [fault])
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else None
    detail = str(error.detail) if isinstance(error, HTTPException) else "something went wrong here"
    return problem(status, detail, headers=headers)


async def _crash(_: Request, __: Exception) -> Response:
    return problem(500, "something went wrong here; the server's log says what")


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem."""
    app.add_exception_handler(FeedError, _feed_error)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _nobody_there)
    app.add_exception_handler(Exception, _crash)
