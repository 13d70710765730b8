"""The client of a feed: follows its stream, lists and posts postings."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, overload
from urllib.parse import quote

import httpx
import orjson
from httpx_sse import EventSource, aconnect_sse

from feed.client.backoff import Backoff
from feed.client.errors import ASK, ClientError, Unavailable, UnexpectedAnswer, error_of, error_on_the_way
from feed.client.event import StreamEvent, read_event
from feed.client.following import Following, Found, Reader, end
from feed.client.query import Filters, authorization, event_id, query, service_url

# Seconds.
_CONNECT = 10.0
_DEFAULT_RETRY = 3.0
_LONGEST_RETRY = 600_000
"""Milliseconds; no server has a say over more."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a batch changed, in postings."""

    created: int
    updated: int
    unchanged: int


@dataclass(frozen=True, slots=True)
class JobsPage:
    """A page of postings, newest first, without their descriptions.

    `next` is the `after` of the next page, None on the last; `previous` is the `before` of the page before, None on
    the first. `about` says how many postings all pages have, if that was asked for and is known. `last_event_id`
    belongs to the same read: following from it misses nothing (an overlap is normal: ignore a `version` that is not
    above the one held).
    """

    jobs: list[dict[str, Any]]
    next: str | None
    last_event_id: str
    previous: str | None = None
    about: int | None = None


class FeedClient:
    """A client of the feed at `url`; an async context manager, which closes every stream that is still followed.

    `key`: an API key or a token, sent with every request; a redirect takes it to the same host only. `http2`:
    speak HTTP/2 (with prior knowledge on http://, by ALPN on https://). `watchdog`: seconds of
    silence after which a stream is taken for dead; servers send a heartbeat after 15. `timeout`: seconds that
    any other request may stay silent. `verify`: an `ssl.SSLContext` for servers with certificates of their
    own. `sleep` is for tests.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        http2: bool = False,
        headers: Mapping[str, str] | None = None,
        watchdog: float = 45.0,
        timeout: float = 30.0,
        backoff: Backoff | None = None,
        verify: ssl.SSLContext | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.url = service_url(url)
        self._http1 = not (http2 and self.url.scheme == "http")
        self._http2 = http2
        self._headers = {**(headers or {}), **({} if key is None else authorization(key))}
        self._watchdog = watchdog
        self._backoff = backoff or Backoff()
        self._sleep = sleep
        self._verify = verify or httpx.create_ssl_context()
        self._http = self._connection(timeout)
        self._readers: set[Reader] = set()
        """Of the streams that are followed now."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(list(self._readers))
        await self._http.aclose()

    def follow(
        self,
        filters: Filters | None = None,
        *,
        since: str | None = None,
        start: str | None = None,
        last_event_id: str | None = None,
        control: bool = False,
    ) -> Following:
        """Return an iterator over matching events, for ever, in order, resuming after every interruption where it was.

        Starts after `last_event_id` (the `id` of an earlier event), else at `since` (RFC 3339, or `15m`,
        `2h`, `3d` ago), else at `start` (`earliest` or `now`, the default). `StreamEvent` says what is
        yielded; a `reset` among postings means that some may have been missed.

        Raises `Refused` when the server will not serve this (a filter it does not know, a 401) and
        `UnexpectedAnswer` when it is no feed. Whatever may pass is waited out: up to `retry` seconds with
        full jitter after a stream ended, doubling to the ceiling while the server cannot be had, and as long
        as a `goodbye` says.

        Leaving the loop closes the connection, however it is left, and leaving the client waits until it is closed. To
        wait for that earlier, wrap the call in `contextlib.aclosing`.
        """
        cursor = event_id(last_event_id or "")
        params = query(filters, since=since, **{"from": start})
        return Following(self._follow(params, cursor, control), self._readers)

    async def _follow(
        self, params: tuple[tuple[str, str], ...], cursor: str, control: bool
    ) -> AsyncGenerator[Found, None]:
        """Yield what `follow` promises; what is no event of a feed is yielded as the error that it is."""
        retry, failures = _DEFAULT_RETRY, 0
        while True:
            delay: float | None = None
            try:
                async with self._stream(params, cursor) as source, aclosing(source.aiter_sse()) as frames:
                    if control:
                        version = source.response.http_version
                        yield StreamEvent(cursor, "connected", {"url": str(self.url), "http_version": version})
                    async for frame in frames:
                        failures = 0
                        if frame.retry is not None:
                            retry = min(frame.retry, _LONGEST_RETRY) / 1000
                        try:
                            cursor = event_id(frame.id) or cursor
                            event = read_event(frame, cursor)
                        except ClientError as error:
                            yield error
                            continue
                        if event is None:
                            continue
                        if event.kind == "goodbye":
                            asked = event.data.get("retry_ms")
                            delay = self._backoff.exactly(asked / 1000 if isinstance(asked, int) else retry)
                        if control or event.is_posting or event.kind == "reset":
                            yield event
                reason = "the server said goodbye" if delay else "the stream ended"
                delay = delay or self._backoff.delay(retry, failures)
            except Unavailable as error:
                reason = str(error)
                delay = self._backoff.delay(retry, failures, error.retry_after)
            failures += 1
            if control:
                yield StreamEvent(cursor, "reconnecting", {"reason": reason, "delay_ms": round(delay * 1000)})
            await self._sleep(delay)

    async def jobs(
        self,
        filters: Filters | None = None,
        *,
        open: bool | None = True,
        limit: int = 50,
        after: str | None = None,
        before: str | None = None,
        sort: Literal["arrived", "posted"] | None = None,
        count: bool = False,
    ) -> JobsPage:
        """Return a page of up to `limit` (1 to 500) postings, newest first: open ones, closed ones, or both
        (None). `sort` by when they arrived, as the service does by itself, or by when they were posted.

        Raises `Refused`, `Unavailable` or `UnexpectedAnswer`.
        """
        state = "any" if open is None else str(open).lower()
        counted = "true" if count else None
        params = query(filters, open=state, limit=limit, after=after, before=before, sort=sort, count=counted)
        page = await self._ask(self._http.build_request("GET", "v1/jobs", params=params), redirects=True)
        try:
            cursor = page["stream"]["last_event_id"]
            return JobsPage(page["jobs"], page["next"], cursor, page.get("previous"), page.get("about"))
        except (KeyError, TypeError) as error:
            raise UnexpectedAnswer(f"{self.url}: the list of postings lacks {error}. {ASK}") from error

    @overload
    async def post(self, postings: Mapping[str, Any]) -> dict[str, Any]: ...

    @overload
    async def post(self, postings: Iterable[Mapping[str, Any]] | bytes) -> Written: ...

    async def post(self, postings: Mapping[str, Any] | Iterable[Mapping[str, Any]] | bytes) -> dict[str, Any] | Written:
        """Write one posting (returns it as stored) or a batch (returns counts): postings, or NDJSON as bytes.

        A batch is one request, all or nothing, up to 32 MiB, 1 MiB a posting. Writing again what has a
        `source` and an `external_id` changes nothing, so it is safe to call this again after `Unavailable`;
        without an `external_id` each call makes a new posting.

        Raises `Refused` (its `faults` name item and field), `Unavailable` or `UnexpectedAnswer`.
        """
        if isinstance(postings, Mapping):
            return await self._ask(self._write(orjson.dumps(postings), "application/json"))
        body = postings if isinstance(postings, bytes) else b"\n".join(map(orjson.dumps, postings))
        counts = await self._ask(self._write(body, "application/x-ndjson"))
        try:
            return Written(counts["created"], counts["updated"], counts["unchanged"])
        except KeyError as error:
            raise UnexpectedAnswer(f"{self.url}: the answer to a batch lacks {error}. {ASK}") from error

    async def close(self, job_id: int) -> dict[str, Any]:
        """Close the posting of that id, and return it; one that is closed stays as it is.

        Raises `Refused` (404: there is none of this id), `Unavailable` or `UnexpectedAnswer`.
        """
        return await self._ask(self._http.build_request("POST", f"v1/jobs/{job_id}/close"))

    async def subscribers(self, *, sort: str = "lag", limit: int = 100) -> dict[str, Any]:
        """Return who follows the feed, over all of its processes: sums, and up to `limit` (1 to 1000) streams.

        `sort` is lag, age, bytes or events; the most comes first. The process that answers gives its figures of now; those
        of the others are up to five seconds old (`seen_at`), with at most a hundred streams of each order. Needs a key of
        the scope admin.

        Raises `Refused`, `Unavailable` or `UnexpectedAnswer`.
        """
        params = query(None, sort=sort, limit=limit)
        return await self._ask(self._http.build_request("GET", "v1/subscribers", params=params), redirects=True)

    async def sources(self) -> dict[str, Any]:
        """Return the public boards that the feed fetches, and how each of them is doing. Needs a key of the scope admin.

        Raises `Refused`, `Unavailable` or `UnexpectedAnswer`.
        """
        return await self._ask(self._http.build_request("GET", "v1/sources"), redirects=True)

    async def kick(self, stream_id: str) -> bool:
        """End a stream, wherever it is: True at once, False within seconds. Needs a key of the scope admin.

        Raises `Refused` (404: there is none of this id), `Unavailable` or `UnexpectedAnswer`.
        """
        request = self._http.build_request("DELETE", f"v1/subscribers/{quote(stream_id, safe='')}")
        return bool((await self._ask(request)).get("ended"))

    def _write(self, body: bytes, content_type: str) -> httpx.Request:
        return self._http.build_request("POST", "v1/jobs", content=body, headers={"Content-Type": content_type})

    async def _ask(self, request: httpx.Request, *, redirects: bool = False) -> dict[str, Any]:
        """Send `request` once and return the JSON object that answers it."""
        try:
            response = await self._http.send(request, follow_redirects=redirects)
        except httpx.RequestError as error:
            raise error_on_the_way(error) from error
        if not response.is_success:
            raise error_of(response)
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict):
            raise UnexpectedAnswer(f"{request.url} answered with something other than a JSON object. {ASK}")
        return answer

    @asynccontextmanager
    async def _stream(self, params: tuple[tuple[str, str], ...], cursor: str) -> AsyncIterator[EventSource]:
        """Open one stream, on a connection of its own: a dead one is never used again, one that is left is
        closed.

        (httpx shares an HTTP/2 connection without resetting the streams that are left on it.)
        """
        headers = {"Accept-Encoding": "identity"} | ({"Last-Event-ID": cursor} if cursor else {})
        asked = [pair for pair in params if not (cursor and pair[0] in ("since", "from"))]
        try:
            async with (
                self._connection(self._watchdog) as http,
                aconnect_sse(
                    http, "GET", "v1/jobs/stream", params=asked, headers=headers, follow_redirects=True
                ) as source,
            ):
                if source.response.status_code != 200:
                    await source.response.aread()
                    raise error_of(source.response)
                content_type = source.response.headers.get("content-type", "nothing")
                if content_type.partition(";")[0].strip() != "text/event-stream":
                    raise UnexpectedAnswer(
                        f"{source.response.url} answered with {content_type}, not with a stream of events. {ASK}"
                    )
                yield source
        except httpx.ReadTimeout as error:
            raise Unavailable(f"nothing has come for {self._watchdog:g} s") from error
        except httpx.RequestError as error:
            raise error_on_the_way(error) from error

    def _connection(self, silence: float) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url,
            http1=self._http1,
            http2=self._http2,
            headers=self._headers,
            verify=self._verify,
            timeout=httpx.Timeout(silence, connect=_CONNECT),
        )
