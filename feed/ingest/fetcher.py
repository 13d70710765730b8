"""The fetcher: gets a URL politely, within bounds, and never from a private address."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING

import httpx

from feed import __version__
from feed.errors import ConfigurationError
from feed.ingest.adapter import Answer, FetchError, FetchFailure, NotModified
from feed.ingest.addresses import Addresses
from feed.ingest.decoding import ACCEPTED, Body, too_large
from feed.ingest.lanes import Lanes
from feed.ingest.retry_after import retry_after
from feed.model.source_run import Validators
from feed.settings.ingest import IngestSettings

if TYPE_CHECKING:
    from feed.ingest.robots import Robots

REDIRECTS = 5
"""Redirects that are followed."""
PATIENCE = 15.0
"""Seconds of `Retry-After` that are waited for within a run. A longer one postpones the next run."""
_PASSING = frozenset[FetchFailure]({"timeout", "truncated", "network", "server", "rate_limited"})
"""Failures that may have passed at the next attempt."""
_REDIRECTING = frozenset((301, 302, 303, 307, 308))
_FAILURES: dict[int, FetchFailure] = {404: "not_found", 410: "gone", 429: "rate_limited"}


@dataclass(frozen=True, slots=True)
class Ask:
    """How one URL is asked for."""

    accept: str = "application/json"
    seconds: float | None = None
    """What the request may take, where that is more than the settings say."""
    gap: float = 0.0
    """Seconds between two requests to the host, where that is more than the settings say."""
    validators: Validators | None = None
    """What the server may compare."""
    with_body: bool = True
    """Whether the body is read; the answer's is empty otherwise."""

    @property
    def is_page(self) -> bool:
        """Return whether it is for people to read, so that robots.txt decides."""
        return "html" in self.accept


class Fetcher:
    """Fetches for one process; `opened` makes one. A semaphore bounds what is under way, and each host has a lane."""

    def __init__(self, settings: IngestSettings, client: httpx.AsyncClient) -> None:
        self._settings = settings
        self._client = client
        self._addresses = Addresses(settings.allow_networks)
        self._lanes = Lanes()
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._robots: Robots | None = None

    def close(self) -> None:
        """Give up what is not connected yet."""
        self._addresses.close()

    async def get(self, url: str, ask: Ask) -> Answer:
        """Return the answer to a GET of `url`; raises FetchError and NotModified.

        What may pass is tried again, after a wait that doubles.
        """
        wait, left = self._settings.backoff, self._settings.retries
        while True:
            try:
                return await self._follow(url, ask)
            except FetchError as error:
                if not left or not _may_pass(error):
                    raise
                await asyncio.sleep(max(error.retry_after or 0.0, wait * random.uniform(0.5, 1.5)))
            wait, left = wait * 2, left - 1

    async def _follow(self, url: str, ask: Ask) -> Answer:
        at = _checked(url, self._settings)
        for _ in range(REDIRECTS + 1):
            gap = max(self._settings.gap, ask.gap)
            if ask.is_page:
                gap = max(gap, await self._allowed(at))
            # The turn ends with each answer: two hosts that redirect to one another must not wait for one another.
            async with self._lanes.turn(at.host, gap), self._slots:
                answer = await self._timed(at, ask)
            if isinstance(answer, Answer):
                return answer
            at = _checked(str(answer), self._settings)
        raise FetchError(f"{_shown(httpx.URL(url))} redirects more than {REDIRECTS} times", "refused")

    async def _allowed(self, url: httpx.URL) -> float:
        """Return the gap that the host's robots.txt asks for; raises FetchError where it does not allow the page."""
        if self._robots is None:
            from feed.ingest.robots import Robots  # needs the extra, which `feed serve` does without

            self._robots = Robots(lambda at: self._follow(at, Ask("text/plain")), self._settings.robots_age)
        rules = await self._robots.rules(str(url.copy_with(raw_path=b"")).rstrip("/"))
        if not rules.allow(str(url)):
            raise FetchError(f"the robots.txt of {url.host} does not allow {_shown(url)}", "robots")
        return rules.delay

    async def _timed(self, url: httpx.URL, ask: Ask) -> Answer | httpx.URL:
        settings = self._settings
        seconds = max(settings.timeout, ask.seconds or 0.0)
        try:
            async with asyncio.timeout(seconds):
                return await self._ask(url, ask)
        except (TimeoutError, httpx.TimeoutException) as error:
            how = f"{seconds:g} s were over" if isinstance(error, TimeoutError) else "it was silent for too long"
            raise FetchError(f"{_shown(url)} did not answer in time: {how}", "timeout") from None

    async def _ask(self, url: httpx.URL, ask: Ask) -> Answer | httpx.URL:
        """Return the answer of one request, or where it redirects to."""
        try:
            response = await self._send(url, ask)
        except (httpx.TransportError, OSError) as error:
            if isinstance(error, httpx.TimeoutException):
                raise
            raise FetchError(f"{url.host} cannot be reached: {_said(error)}", "network") from None
        try:
            return await self._read(url, ask, response)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.StreamError) as error:
            raise FetchError(f"{_shown(url)} broke its answer off: {_said(error)}", "truncated", 200) from None
        finally:
            await response.aclose()

    async def _send(self, url: httpx.URL, ask: Ask) -> httpx.Response:
        """Send the request to the first address of the host that takes it, and return the head of its answer.

        The connection goes to the address that was checked; the certificate is checked against the name.
        """
        settings = self._settings
        host = url.raw_host.decode("ascii")
        addresses = await self._addresses.of(host, url.port or _PORTS[url.scheme])
        headers = {"Host": url.netloc.decode("ascii"), "Accept": ask.accept, "Accept-Encoding": ACCEPTED}
        if ask.validators is not None and ask.validators.etag is not None:
            headers["If-None-Match"] = ask.validators.etag
        if ask.validators is not None and ask.validators.last_modified is not None:
            headers["If-Modified-Since"] = ask.validators.last_modified
        silence = max(settings.read_timeout, ask.seconds or 0.0)
        timeout = httpx.Timeout(silence, connect=settings.connect_timeout)
        for number, address in enumerate(addresses, 1):
            request = self._client.build_request(
                "GET", url.copy_with(host=address), headers=headers, timeout=timeout, extensions={"sni_hostname": host}
            )
            try:
                return await self._client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise FetchError(f"{url.host} has no address", "network")

    async def _read(self, url: httpx.URL, ask: Ask, response: httpx.Response) -> Answer | httpx.URL:
        status, headers = response.status_code, response.headers
        if status in _REDIRECTING and "location" in headers:
            try:
                return url.join(headers["location"])
            except (httpx.InvalidURL, ValueError) as error:
                raise FetchError(f"{_shown(url)} redirects to no URL: {error}", "refused", status) from None
        if status == 304 and ask.validators is not None:
            raise NotModified
        if status != 200:
            kind = _FAILURES.get(status, "refused" if 400 <= status < 500 else "server")
            raise FetchError(f"{_shown(url)} answered {status}", kind, status, retry_after(headers))
        whole = await self._body(response) if ask.with_body else b""
        return Answer(str(url), whole, headers.get("content-type", ""), headers)

    async def _body(self, response: httpx.Response) -> bytes:
        announced = response.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced[:20]) > self._settings.max_bytes:
            raise too_large(self._settings.max_bytes)
        body = Body(response.headers.get("content-encoding", "").strip().lower(), self._settings.max_bytes)
        async for piece in response.aiter_raw():
            for _ in body.add(piece):
                await asyncio.sleep(0)  # live streams go in between
        return body.end()


@asynccontextmanager
async def opened(settings: IngestSettings) -> AsyncIterator[Fetcher]:
    """Yield a fetcher; its connections are closed on leaving. Raises ConfigurationError for a bad FEED_INGEST_CA_FILE."""
    trusted = await asyncio.to_thread(httpx.create_ssl_context, trust_env=False)
    if settings.ca_file is not None:
        try:
            trusted.load_verify_locations(settings.ca_file)
        except OSError as error:
            raise ConfigurationError(f"FEED_INGEST_CA_FILE={settings.ca_file} cannot be read: {error}") from error
    client = httpx.AsyncClient(
        verify=trusted,
        trust_env=False,  # a proxy would connect to addresses that nobody checked
        headers={"User-Agent": f"feed/{__version__} (+{settings.contact})"},
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        # A connection is to an address, and hosts share addresses: none is used again for another host.
        limits=httpx.Limits(max_keepalive_connections=0),
    )
    async with client:
        fetcher = Fetcher(settings, client)
        try:
            yield fetcher
        finally:
            fetcher.close()


_PORTS = {"https": 443, "http": 80}


def _may_pass(error: FetchError) -> bool:
    """Return whether it is worth asking again within this run; a 429 without `Retry-After` is left to the next one."""
    if error.kind == "rate_limited" and error.retry_after is None:
        return False
    return error.kind in _PASSING and (error.retry_after or 0.0) <= PATIENCE


def _checked(url: str, settings: IngestSettings) -> httpx.URL:
    """Return a URL that may be fetched; raises FetchError for any other."""
    try:
        read = httpx.URL(url).copy_with(fragment=None)
        read.raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError) as error:
        raise FetchError(f"{url[:200]!r} is no URL: {error}", "refused") from None
    if read.scheme not in _PORTS or not read.host:
        raise FetchError(f"{_shown(read)} is no URL of a web server", "refused")
    if read.scheme == "http" and not settings.allow_http:
        raise FetchError(
            f"{_shown(read)} is not https, without which nobody knows who answers (FEED_INGEST_ALLOW_HTTP)", "refused"
        )
    if read.userinfo:
        raise FetchError(f"{_shown(read)} contains a user's name or password, which is not sent", "refused")
    return read


def _shown(url: httpx.URL) -> str:
    """Return a URL for an error's text, without what might be a secret."""
    port = "" if url.port is None else f":{url.port}"
    return f"{url.scheme}://{url.host}{port}{url.path}"[:300]


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
