"""Routes for operators: list the open streams of every process on the database, and end one of them."""

from collections import Counter
from dataclasses import fields
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from feed.access.grant import Scope
from feed.database.presence import MISSING_AFTER, REPORTED_STREAMS, WRITE_INTERVAL, Presence, Process, Reports
from feed.fanout.stream_report import FILTER_LENGTH, Sort, StreamEntry, StreamReport
from feed.http.gate import Gate
from feed.http.methods import Route
from feed.http.origin import same_site
from feed.http.problems import documented
from feed.model.frame import encode

_ENTRY = tuple(one.name for one in fields(StreamEntry))
_LIST = f"""Open streams of every worker on every node, worst first. Needs the scope `admin`.

Every process writes what it serves into the database every {WRITE_INTERVAL:.0f} seconds. The process that answers adds its
own figures as of now; those of the others are as old as their `seen_at` says. Of another process, the {REPORTED_STREAMS}
streams that come first in each order are listed at the most, and filters are cut to {FILTER_LENGTH} characters; its sums are
over all of its streams."""


class SubscribersQuery(BaseModel):
    """Which streams come first, and how many of them."""

    model_config = ConfigDict(extra="forbid")

    sort: Sort = Field(default=Sort.LAG, description="The largest lag, the oldest, the most bytes or events first.")
    limit: int = Field(
        default=100, ge=1, le=1000,
        description=f"Streams to list. Each process but the one that answers contributes {REPORTED_STREAMS} at the most.",
    )  # fmt: skip


class Subscriber(BaseModel):
    """One open stream. `lag` counts positions behind the head; `filter` is a query string, empty for everything."""

    id: str
    key: str = Field(description="`key:<id>`, `jwt:<sub>`, or `open` where none was needed.")
    address: str
    filter: str
    protocol: str
    since: str = Field(description="When it opened, RFC 3339.")
    position: int
    lag: int
    events: int
    bytes: int
    pushed: bool = Field(description="Live frames go straight to its socket; else it reads the log at its own pace.")
    process: str
    host: str
    worker: int | None


class ServingProcess(BaseModel):
    """A process and the sums over its streams; `events` and `bytes` count from its start."""

    id: str
    host: str
    pid: int
    worker: int | None
    version: str
    started_at: str
    seen_at: str = Field(description="When these figures were true, RFC 3339.")
    streams: int
    pushed: int
    head: int
    lag: int
    events: int
    bytes: int


class MissingProcess(BaseModel):
    """A process that has not written for a while: it hangs, or is cut off, or was killed."""

    id: str
    host: str
    pid: int
    worker: int | None
    version: str
    started_at: str
    seen_at: str = Field(description="When it last wrote, RFC 3339.")


class Subscribers(BaseModel):
    """Sums over all processes that are not missing, and the streams that come first."""

    at: str
    streams: int
    pushed: int
    pulled: int
    protocols: dict[str, int]
    lag: int = Field(description="The largest of all streams.")
    processes: list[ServingProcess]
    missing: list[MissingProcess] = Field(
        description=f"Processes that have not written for {MISSING_AFTER:.0f} seconds: their streams are not counted."
    )
    fault: str | None = Field(description="Why nothing is known of the other processes; null where all were read.")
    subscribers: list[Subscriber]


class Kicked(BaseModel):
    """Whether the stream has been told goodbye; if not, the process that has it will do so within five seconds."""

    id: str
    ended: bool


def routes(presence: Presence, gate: Gate) -> APIRouter:
    """Return the routes over what the processes report."""
    router = APIRouter(prefix="/v1/subscribers", tags=["operators"], route_class=Route)

    @router.get(
        "",
        response_model=Subscribers,
        responses=documented(401, 403, 422),
        description=_LIST,
    )
    async def list_subscribers(request: Request, query: Annotated[SubscribersQuery, Query()]) -> Response:
        await gate.admit(request, Scope.ADMIN)
        body = _body(await presence.read(query.sort, query.limit))
        return Response(encode(body), media_type="application/json", headers={"Cache-Control": "no-store"})

    @router.delete(
        "/{stream_id}",
        response_model=Kicked,
        responses={**documented(401, 403, 404, 422, 503), 202: {"model": Kicked}},
        dependencies=[Depends(same_site)],
    )
    async def kick(stream_id: Annotated[str, Path(max_length=64)], request: Request) -> Response:
        """End one stream, wherever it is, with a goodbye (`kicked`). Needs the scope `admin`.

        Answers 202 where another process has it, by its id, without knowing whether it is still open there. Its client may
        come back with the same credential: revoke that to keep it away.
        """
        await gate.admit(request, Scope.ADMIN)
        ended = await presence.kick(stream_id)
        body = Kicked(id=stream_id, ended=ended).model_dump()
        return Response(encode(body), 200 if ended else 202, media_type="application/json")

    return router


def _body(read: Reports) -> dict[str, object]:
    reports = read.by_process.values()
    streams, pushed = sum(report.streams for report in reports), sum(report.pushed for report in reports)
    protocols: Counter[str] = Counter()
    for report in reports:
        protocols.update(report.protocols)
    return {
        "at": _time(datetime.now(UTC)),
        "streams": streams,
        "pushed": pushed,
        "pulled": streams - pushed,
        "protocols": dict(sorted(protocols.items())),
        "lag": max((report.lag for report in reports), default=0),
        "processes": [
            _serving(process, read.by_process[process.id])
            for process in read.processes if process.id in read.by_process
        ],
        "missing": [_process(process) for process in read.missing],
        "fault": read.fault,
        "subscribers": [_subscriber(process, entry) for process, entry in read.streams()],
    }  # fmt: skip


def _process(process: Process) -> dict[str, object]:
    return {
        "id": process.id, "host": process.host, "pid": process.pid, "worker": process.worker,
        "version": process.version, "started_at": _time(process.started_at),
        "seen_at": _time(process.seen_at),
    }  # fmt: skip


def _serving(process: Process, report: StreamReport) -> dict[str, object]:
    return _process(process) | {
        "streams": report.streams, "pushed": report.pushed, "head": report.head, "lag": report.lag,
        "events": report.events, "bytes": report.bytes,
    }  # fmt: skip


def _subscriber(process: Process, entry: StreamEntry) -> dict[str, object]:
    return {name: getattr(entry, name) for name in _ENTRY} | {
        "process": process.id,
        "host": process.host,
        "worker": process.worker,
    }


def _time(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
