"""What an address must be for a feed: found, open, trusted, and a feed that answers at once and to the right client."""

import asyncio
import os
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Any

import httpx
import orjson
from cryptography import x509

from feed.client.query import authorization, service_url
from feed.doctor.finding import Finding, Verdict, fail, ok, warn
from feed.doctor.timing import Measured, NoProbe, measure

_TIMEOUT = 10.0  # seconds
_EXPIRES = 21
"""Days before its expiry at which a certificate should have been renewed."""
_CLOCK = 5.0  # seconds; the Date header tells whole ones
_HELD = 0.15
"""Seconds that a frame may be held back, by whatever."""
_TRIES = 3
_OPENING = 2.0
"""Seconds within which a stream says where it begins."""
_REASON = re.compile(rb'"reason": ?"([^"]*)"')
_BUFFERS = (
    "A proxy on the way buffers. nginx: `proxy_http_version 1.1; proxy_buffering off;` (or let it heed X-Accel-Buffering), "
    "no gzip for text/event-stream; Caddy: `flush_interval -1` in reverse_proxy, no `encode` for text/event-stream; "
    "HAProxy: no compression of text/event-stream, `option http-no-delay`; a CDN: streaming on, no caching of /v1/."
)


async def examine_address(url: str, key: str | None = None) -> AsyncIterator[Finding]:
    """Check the feed at `url`, from the name to the first frames; raises Unusable for what is no address."""
    base = service_url(url)
    headers = {} if key is None else authorization(key)
    secure = base.scheme == "https"
    port = base.port or (443 if secure else 80)
    found = await _resolved(base.host, port)
    yield found[0]
    connected = await _connected(base.host, port, found[1])
    if connected is not None:
        yield connected
        if connected.verdict is Verdict.FAIL:
            return
    http2 = True
    if secure:
        tls, http2 = await _secured(base.host, port)
        for finding in tls:
            yield finding
        if any(finding.verdict is Verdict.FAIL for finding in tls):
            return
    elif not _private(base.host):
        yield warn(
            "TLS",
            "the address has no TLS: whatever is sent, keys too, can be read on the way",
            "Serve it over https://.",
        )
    async with _client(base, http2=False) as client:
        alive = await _alive(client)
        for finding in alive:
            yield finding
        if any(finding.verdict is Verdict.FAIL for finding in alive):
            return
        yield await _ready(client)
        async for finding in _timed(client, "HTTP/1.1"):
            yield finding
        yield await _streaming(client, headers)
    if not http2:
        return
    async with _client(base, http2=True) as client:
        if not secure and not await _speaks_h2c(client):
            yield ok(
                "HTTP/2",
                "not spoken on this plain port, which is usual behind a proxy; browsers have it over TLS only",
            )
            return
        async for finding in _timed(client, "HTTP/2"):
            yield finding


def _client(base: httpx.URL, *, http2: bool) -> httpx.AsyncClient:
    # No redirects: the key must not go anywhere else, and what redirects is not the feed.
    return httpx.AsyncClient(
        base_url=base,
        http1=not (http2 and base.scheme == "http"),
        http2=http2,
        timeout=_TIMEOUT,
        follow_redirects=False,
    )


async def _resolved(host: str, port: int) -> tuple[Finding, list[str]]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return fail(
            "name", f"{host} is not found: {error.strerror or error}", "Correct the URL, or the DNS record."
        ), []
    addresses = sorted({str(entry[4][0]) for entry in found})
    return ok("name", f"{host} is {', '.join(addresses)}"), addresses


async def _connected(host: str, port: int, addresses: list[str]) -> Finding | None:
    """Check whether every address of the name takes connections; None where the name has no address."""
    if not addresses:
        return None
    refused: list[str] = []
    spent: list[float] = []
    for address in addresses[:8]:
        before = time.monotonic()
        try:
            async with asyncio.timeout(_TIMEOUT):
                _, writer = await asyncio.open_connection(address, port)
        except (OSError, TimeoutError) as error:
            why = os.strerror(error.errno) if error.errno else type(error).__name__
            refused.append(f"{address}: {why}")
            continue
        spent.append(time.monotonic() - before)
        writer.transport.abort()
    if not spent:
        todo = f"Is it running, and listening on that address? A firewall may be in the way of port {port}."
        return fail("connection", f"port {port} takes no connection ({'; '.join(refused)})", todo)
    if refused:
        todo = f"Clients that try it first wait: listen there too, or take it out of the DNS record of {host}."
        return warn("connection", f"port {port} is open, but not everywhere ({'; '.join(refused)})", todo)
    return ok("connection", f"port {port} is open ({min(spent) * 1000:.0f} ms)")


async def _secured(host: str, port: int) -> tuple[list[Finding], bool]:
    """Return the findings about TLS, and whether HTTP/2 was agreed upon."""
    context = httpx.create_ssl_context()  # with SSL_CERT_FILE, as our client has it
    context.set_alpn_protocols(["h2", "http/1.1"])
    findings: list[Finding] = []
    try:
        agreed = await _handshake(host, port, context)
    except ssl.SSLCertVerificationError as error:
        lax = ssl.create_default_context()
        lax.check_hostname, lax.verify_mode = False, ssl.CERT_NONE
        lax.set_alpn_protocols(["h2", "http/1.1"])
        until = ""
        with suppress(OSError, TimeoutError):
            _, _, certificate = await _handshake(host, port, lax)
            until = f" (valid until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M}Z)"
        todo = "Renew it, or serve the whole chain for this name; one of your own is trusted through SSL_CERT_FILE."
        return [fail("TLS", f"the certificate is not valid: {error.verify_message}{until}", todo)], False
    except (OSError, TimeoutError) as error:
        return [
            fail(
                "TLS", f"the TLS handshake failed: {error or type(error).__name__}", "Is this a TLS port? Try http://."
            )
        ], False
    version, protocol, certificate = agreed
    left = (certificate.not_valid_after_utc - datetime.now(UTC)).days
    found = f"{version}, certificate verified, valid for {left} days"
    if left < _EXPIRES:
        findings.append(warn("TLS", found, "Renew the certificate, and see why that did not happen by itself."))
    elif version not in ("TLSv1.2", "TLSv1.3"):
        findings.append(warn("TLS", found, "Switch on TLS 1.3."))
    else:
        findings.append(ok("TLS", found))
    if protocol != "h2":
        todo = "Switch on HTTP/2: over HTTP/1.1 a browser opens six streams and then waits. nginx: `http2 on;`."
        findings.append(warn("ALPN", f"{protocol or 'nothing'} was agreed upon, not h2", todo))
    else:
        findings.append(ok("ALPN", "h2"))
    return findings, protocol == "h2"


async def _handshake(host: str, port: int, context: ssl.SSLContext) -> tuple[str, str | None, x509.Certificate]:
    async with asyncio.timeout(_TIMEOUT):
        _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=host)
    try:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) or b""
        return tls.version() or "?", tls.selected_alpn_protocol(), x509.load_der_x509_certificate(certificate)
    finally:
        writer.transport.abort()


async def _alive(client: httpx.AsyncClient) -> list[Finding]:
    """Check whether a feed answers, and how far its clock is from this machine's."""
    try:
        before = time.time()
        response = await client.get("healthz")
        after = time.time()
    except httpx.HTTPError as error:
        return [fail("feed", f"no answer: {error or type(error).__name__}", "Is what listens there a web server?")]
    if response.is_redirect:
        where = response.headers.get("location", "?")
        return [fail("feed", f"redirected to {where}", "Give that address: streams must not be redirected each time.")]
    if response.status_code != 200 or _json(response).get("alive") is not True:
        todo = "Is this the address of a feed? A proxy must pass /healthz, /readyz and /v1/ to it."
        return [fail("feed", f"/healthz answered {response.status_code}, and not as a feed does", todo)]
    findings = [ok("feed", f"alive ({(after - before) * 1000:.0f} ms)")]
    with suppress(KeyError, TypeError, ValueError):
        there = parsedate_to_datetime(response.headers["date"]).timestamp()
        apart = max(0.0, before - there - 1.0, there - after)
        found = f"the server's clock and this machine's are {apart:.0f} s apart"
        todo = "Run an NTP client (chrony, systemd-timesyncd) on both."
        findings.append(ok("server clock", found) if apart <= _CLOCK else warn("server clock", found, todo))
    return findings


async def _ready(client: httpx.AsyncClient) -> Finding:
    try:
        response = await client.get("readyz")
    except httpx.HTTPError as error:
        return fail("ready", f"no answer: {error or type(error).__name__}", "See the log of the service.")
    state = _json(response)
    if response.status_code == 200:
        return ok("ready", f"at position {state.get('position')}, {state.get('streams')} streams in this process")
    if state.get("draining"):
        return fail("ready", "the process is draining", "It is about to end: ask again, or see who stopped it.")
    reason = state.get("database")
    why = f"database: {reason}" if reason not in (None, "ok") else f"events lag by {state.get('lag')}"
    return fail(
        "ready", f"/readyz answered {response.status_code}: {why}", "Run feed doctor where its database is known."
    )


async def _timed(client: httpx.AsyncClient, protocol: str) -> AsyncIterator[Finding]:
    """Check whether frames arrive when they are sent; several tries, because this machine may have been busy itself."""
    check = f"frames, {protocol}"
    best: Measured | None = None
    try:
        for _ in range(_TRIES):
            measured = await measure(client)
            best = measured if best is None or measured.held < best.held else best
            if best.held < _HELD:
                break
    except NoProbe as error:
        yield warn(check, str(error), "Upgrade feed there, or let the proxy pass /v1/probe.")
        return
    except (httpx.HTTPError, TimeoutError) as error:
        yield fail(check, f"no answer: {error or type(error).__name__}", _BUFFERS)
        return
    if best is None:
        return
    gaps = ", ".join(f"{gap * 1000:.0f}" for gap in best.gaps)
    if best.held >= _HELD:
        found = f"sent 300 ms apart, arrived {gaps} ms apart: held back by {best.held * 1000:.0f} ms"
        yield fail(check, found, _BUFFERS)
    elif best.encoding:
        todo = f"It may hold frames back: no {best.encoding} for text/event-stream in the proxy."
        yield warn(check, f"arrived {gaps} ms apart, compressed on the way ({best.encoding})", todo)
    else:
        yield ok(check, f"arrive as they are sent ({gaps} ms apart, {best.http_version})")
    if protocol == "HTTP/1.1":
        if best.version:
            yield ok("version", f"feed {best.version}")
        if best.client:
            yield _seen(best.client, best.peer)


def _seen(client: str, peer: str) -> Finding:
    """Check whether the server sees its clients, or only the proxy before it."""
    if _private(client) and not _private(peer):
        todo = "Set FEED_TRUSTED_PROXIES to the proxy's network, and have it send X-Forwarded-For."
        return warn("client address", f"the server sees {client}, which is not this machine's", todo)
    return ok("client address", f"the server sees {client}")


async def _streaming(client: httpx.AsyncClient, headers: dict[str, str]) -> Finding:
    """Check whether a stream opens, and says at once where it begins."""
    before = time.monotonic()
    said = b""
    try:
        async with asyncio.timeout(_TIMEOUT), client.stream("GET", "v1/jobs/stream", headers=headers) as response:
            if response.status_code in (401, 403):
                todo = "Give a key that may read, with --key or in FEED_KEY."
                return warn("stream", f"the stream needs a credential ({response.status_code})", todo)
            if response.status_code != 200:
                return fail("stream", f"the request was answered {response.status_code}", "See the log of the service.")
            async for piece in response.aiter_bytes():
                said += piece
                if b"event: goodbye" in said and said.endswith(b"\n\n"):
                    reason = _REASON.search(said)
                    why = "?" if reason is None else reason[1].decode(errors="replace")
                    return fail("stream", f"the stream ended at once: {why}", "See the log of the service.")
                if b"retry:" in said and b"\nid:" in said:
                    break
            else:
                return fail(
                    "stream",
                    "the stream ended before it began",
                    "See the logs of service and proxy.",
                )
    except TimeoutError:
        return fail("stream", f"the stream said nothing for {_TIMEOUT:.0f} s", _BUFFERS)
    except httpx.HTTPError as error:
        return fail("stream", f"no answer: {error or type(error).__name__}", _BUFFERS)
    spent = time.monotonic() - before
    found = f"retry and id came after {spent * 1000:.0f} ms"
    return ok("stream", found) if spent < _OPENING else warn("stream", found, "See the load of the service.")


async def _speaks_h2c(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("healthz")).status_code == 200
    except httpx.HTTPError:
        return False


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        document = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _private(host: str) -> bool:
    try:
        found = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return found.is_private or found.is_loopback
