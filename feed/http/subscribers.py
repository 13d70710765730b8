"""Routes for operators: who subscribes, in every process on the database, and an end to one of them."""

from collections import Counter
from dataclasses import fields
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from feed.access.grant import Scope
from feed.database.census import Census, Process, Tally
from feed.fanout.stream_report import Answer, Entry, Sort
from feed.http.gate import Gate
from feed.http.origin import same_site
from feed.http.problems import documented
from feed.model.frame import encode

_ENTRY = tuple(one.name for one in fields(Entry))


class SubscribersQuery(BaseModel):
    """Which streams come first, and how many of them."""

    model_config = ConfigDict(extra="forbid")

    sort: Sort = Field(default=Sort.LAG, description="The largest lag, the oldest, the most bytes or events first.")
    limit: int = Field(default=100, ge=1, le=1000)


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
    """A process and the sums over its streams; `events` and `bytes` count from its beginning."""

    id: str
    host: str
    pid: int
    worker: int | None
    version: str
    streams: int
    pushed: int
    head: int
    lag: int
    events: int
    bytes: int


class MissingProcess(BaseModel):
    """A process that lives, by all that is known, and did not answer in time."""

    id: str
    host: str
    pid: int
    worker: int | None
    version: str
    seen_at: str | None


class Subscribers(BaseModel):
    """Sums over all processes that answered, and the streams that come first."""

    at: str
    streams: int
    pushed: int
    pulled: int
    protocols: dict[str, int]
    lag: int = Field(description="The largest of all streams.")
    processes: list[ServingProcess]
    missing: list[MissingProcess]
    fault: str | None = Field(description="Why only this process could be asked; null: all were.")
    subscribers: list[Subscriber]


class Kicked(BaseModel):
    """`ended`: it was told goodbye; else it will be within five seconds, by the process that has it."""

    id: str
    ended: bool


def routes(census: Census, gate: Gate) -> APIRouter:
    """The routes over one census."""
    router = APIRouter(prefix="/v1/subscribers", tags=["operators"])

    @router.get("", response_model=Subscribers, responses=documented(401, 403, 422))
    async def list_subscribers(request: Request, query: Annotated[SubscribersQuery, Query()]) -> Response:
        """Open streams of every worker on every node, worst first. Needs the scope `admin`.

        Takes up to a second and a half where a process does not answer; `missing` names it.
        """
        await gate.admit(request, Scope.ADMIN)
        body = _body(await census.ask(query.sort, query.limit))
        return Response(encode(body), media_type="application/json", headers={"Cache-Control": "no-store"})

    @router.delete(
        "/{stream_id}",
        response_model=Kicked,
        responses={**documented(401, 403, 404, 422, 503), 202: {"model": Kicked}},
        dependencies=[Depends(same_site)],
    )
    async def kick(stream_id: Annotated[str, Path(max_length=64)], request: Request) -> Response:
        """End one stream, wherever it is, with a goodbye (`kicked`). Needs the scope `admin`.

        Its client may come back with the same credential: revoke that to keep it away.
        """
        await gate.admit(request, Scope.ADMIN)
        ended = await census.kick(stream_id)
        body = Kicked(id=stream_id, ended=ended).model_dump()
        return Response(encode(body), 200 if ended else 202, media_type="application/json")

    return router


def _body(tally: Tally) -> dict[str, object]:
    answers = tally.answers.values()
    streams, pushed = sum(answer.streams for answer in answers), sum(answer.pushed for answer in answers)
    protocols: Counter[str] = Counter()
    for answer in answers:
        protocols.update(answer.protocols)
    return {
        "at": _time(datetime.now(UTC)),
        "streams": streams,
        "pushed": pushed,
        "pulled": streams - pushed,
        "protocols": dict(sorted(protocols.items())),
        "lag": max((answer.lag for answer in answers), default=0),
        "processes": [
            _serving(process, tally.answers[process.id])
            for process in tally.processes if process.id in tally.answers
        ],
        "missing": [_missing(process) for process in tally.missing],
        "fault": tally.fault,
        "subscribers": [_subscriber(process, entry) for process, entry in tally.entries()],
    }  # fmt: skip


def _process(process: Process) -> dict[str, object]:
    return {
        "id": process.id, "host": process.host, "pid": process.pid, "worker": process.worker,
        "version": process.version,
    }  # fmt: skip


def _serving(process: Process, answer: Answer) -> dict[str, object]:
    return _process(process) | {
        "streams": answer.streams, "pushed": answer.pushed, "head": answer.head, "lag": answer.lag,
        "events": answer.events, "bytes": answer.bytes,
    }  # fmt: skip


def _missing(process: Process) -> dict[str, object]:
    return _process(process) | {"seen_at": None if process.seen_at is None else _time(process.seen_at)}


def _subscriber(process: Process, entry: Entry) -> dict[str, object]:
    return {name: getattr(entry, name) for name in _ENTRY} | {
        "process": process.id,
        "host": process.host,
        "worker": process.worker,
    }


def _time(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
