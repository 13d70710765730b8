"""The gate: it authenticates and authorizes every request, and counts it against the limits."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import structlog
from starlette.requests import HTTPConnection

from feed.access.caller import Caller
from feed.access.grant import NOTHING, OPEN, OPEN_READING, Grant, Scope
from feed.access.key import PREFIX
from feed.access.keys import Keys
from feed.access.revocations import Revocations
from feed.access.secret import Secret
from feed.access.sessions import COOKIE, open_session, read_session
from feed.access.tickets import Admission, Tickets
from feed.access.tokens import Tokens
from feed.errors import DatabaseUnavailable, Forbidden, TooMany, Unauthorized
from feed.http.address import Origin, bucket_of, is_within, origin_of
from feed.limits.rates import Limit, Rates
from feed.model.cursor import Cursor
from feed.observability.metrics import Metrics
from feed.settings.settings import Settings, is_loopback

log = structlog.get_logger(__name__)

_HOW = (
    "send `Authorization: Bearer <key or token>`. A browser signs in with POST /v1/session, or opens a stream with a ticket "
    "from POST /v1/tickets"
)


_ORIGIN = "feed.origin"
_REMEMBERED = 10_000
"""Addresses of which it is remembered what limits count them as."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A caller that wants to open a stream, with its ticket if it has one."""

    caller: Caller
    ticket: Admission | None = None


class Gate:
    """Turns a request's credential (a key, a token, a session's cookie, or none) into a caller."""

    def __init__(
        self, settings: Settings, keys: Keys, tokens: Tokens, tickets: Tickets, revocations: Revocations, secret: Secret,
        rates: Rates, metrics: Metrics, revoke: Callable[[str, str, float], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._keys = keys
        self._tokens = tokens
        self._tickets = tickets
        self._revocations = revocations
        self._secret = secret
        self._rates = rates
        self._metrics = metrics
        self._revoke = revoke
        self._on_loopback = settings.on_loopback
        self._bucket_of = lru_cache(_REMEMBERED)(self._find_bucket)

    async def admit(self, request: HTTPConnection, scope: Scope) -> Caller:
        """Return the caller, if it has `scope`; raises Unauthorized, Forbidden, TooMany or DatabaseUnavailable."""
        origin = self._origin(request)
        caller = self._caller(request, origin, await self._grant(request, origin, scope))
        if not caller.grant.allows(scope):
            raise Forbidden(f"this credential lacks the scope {scope}, which this request needs")
        if scope is Scope.READ:
            self._limit("read", caller.who)
        elif scope is Scope.WRITE:
            self._limit("write", caller.who)
        return caller

    async def admit_stream(self, request: HTTPConnection, ticket: str | None, cursor: Cursor | None) -> "Visitor":
        """Return who wants to open a stream, with a ticket or without one; raises as `admit` does.

        It does not use up the ticket (`redeem` does), and does not count the stream against a rate (`too_often` does).
        """
        origin = self._origin(request)
        admission = None
        if ticket is None:
            grant = await self._grant(request, origin, Scope.READ)
        else:
            try:
                admission = await self._tickets.admit(ticket, origin.address, cursor)
                grant = admission.grant
                if grant.name == OPEN.name:
                    # The ticket was requested without a credential, so it is valid only where reading needs none.
                    self._without(request, origin, Scope.READ)
                await self._in_force(grant)
            except Unauthorized as error:
                self._refuse(error, origin)
                raise
        if not grant.allows(Scope.READ):
            raise Forbidden("this credential does not allow reading")
        return Visitor(self._caller(request, origin, grant), admission)

    async def redeem(self, request: HTTPConnection, visitor: "Visitor", began: int) -> datetime | None:
        """Use a visitor's ticket, if it has one, for a stream that begins at the position `began`; raises Unauthorized.

        Returns what `give_back` asks for.
        """
        if visitor.ticket is None:
            return None
        try:
            return await self._tickets.redeem(visitor.ticket, visitor.caller.address, began)
        except Unauthorized as error:
            self._refuse(error, self._origin(request))
            raise

    async def give_back(self, visitor: "Visitor", redeemed_at: datetime | None) -> None:
        """Make the ticket of a visitor whose stream did not begin usable again; if the database is away, only log that."""
        if visitor.ticket is not None:
            try:
                await self._tickets.give_back(visitor.ticket, redeemed_at)
            except DatabaseUnavailable as error:
                log.warning("a ticket could not be given back", error=str(error))

    def stranger(self, request: HTTPConnection) -> Caller:
        """Return the caller of a request whose credential was not checked: an address and a protocol, and no rights."""
        return self._caller(request, self._origin(request), NOTHING)

    async def may(self, request: HTTPConnection, scope: Scope) -> bool:
        """Whether the request has `scope`; an invalid credential is no error here. Raises DatabaseUnavailable."""
        try:
            return (await self._grant(request, self._origin(request), scope)).allows(scope)
        except (Unauthorized, Forbidden, TooMany):
            return False

    def too_often(self, caller: Caller) -> bool:
        """Count a stream of the caller, and return whether it opens streams more often than it may."""
        if not caller.bucket or self._rates.hit("stream", caller.bucket) == 0:
            return False
        self._metrics.limited("stream_rate")
        return True

    async def session(self, grant: Grant) -> tuple[Grant, str]:
        """Return the grant of a new session for the holder of a grant, and the value of its cookie."""
        return open_session(grant, await self._secret.value(), self._settings.access.session_age)

    async def end_session(self, request: HTTPConnection) -> None:
        """End the session of the request's cookie in every process. Nothing happens if there is no valid cookie."""
        try:
            grant = read_session(request.cookies.get(COOKIE, ""), await self._secret.value())
            self._revocations.check(grant)
        except Unauthorized:
            return  # there is no session, or it has ended
        self._limit("read", self._bucket(self._origin(request)))
        if grant.session is not None:
            await self._revoke("session", grant.session, self._settings.access.session_age)

    def secure(self, request: HTTPConnection) -> bool:
        """Whether the client came over TLS."""
        return self._origin(request).secure

    def _local(self, request: HTTPConnection, origin: Origin) -> bool:
        """Whether a request came directly from this machine, to a host name that means this machine.

        A request that a local proxy forwards for somebody else has a forwarding header. A page of another site may reach us
        under a name that resolves to this machine (DNS rebinding); its Host header shows that name.
        """
        server = request.scope.get("server")
        named = _host_of(request.headers.get("host", ""))
        return (
            self._on_loopback
            and not origin.forwarded
            and server is not None
            and is_loopback(server[0])
            and request.scope.get("http_version") != "1.0"  # which proxies may send by default, and clients do not
            and is_loopback(origin.address)
            and (is_loopback(named) or named.endswith(".localhost"))
        )

    async def _grant(self, request: HTTPConnection, origin: Origin, scope: Scope) -> Grant:
        try:
            sent = request.headers.get("authorization")
            if sent is not None:
                return await self._by_header(sent, origin)
            cookie = request.cookies.get(COOKIE)
            if cookie is None:
                return self._without(request, origin, scope)
            try:
                return await self._by_cookie(cookie)
            except Unauthorized as error:
                try:
                    return self._without(request, origin, scope)  # an expired cookie must not be worse than no cookie
                except Unauthorized:
                    raise error from None
        except Unauthorized as error:
            self._refuse(error, origin)
            raise

    async def _by_header(self, sent: str, origin: Origin) -> Grant:
        scheme, _, credential = sent.partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential or not credential.isascii():
            raise Unauthorized(f"the Authorization header cannot be read: {_HOW}", "malformed")
        if credential.startswith(PREFIX):
            bucket = self._bucket(origin)
            if bucket and not self._keys.knows(credential) and (seconds := self._rates.wait("denied", bucket)) > 0:
                raise _too_many(seconds)  # an address that guesses keys must not cause queries
            return await self._keys.grant(credential)
        grant = await self._tokens.grant(credential)
        self._revocations.check(grant)
        return grant

    async def _by_cookie(self, cookie: str) -> Grant:
        grant = read_session(cookie, await self._secret.value())
        if grant.name == OPEN.name:
            raise Unauthorized("this session was opened without a key or token: sign in again with one", "malformed")
        await self._in_force(grant)
        return grant

    async def _in_force(self, grant: Grant) -> None:
        """Raise Unauthorized if the credential that a session or a ticket was made from has expired or was revoked."""
        self._revocations.check(grant)
        if grant.name.startswith("key:"):
            await self._keys.of_id(grant.name.removeprefix("key:"))

    def _without(self, request: HTTPConnection, origin: Origin, scope: Scope) -> Grant:
        settings = self._settings
        local = self._local(request, origin)
        if local and settings.open_reading and settings.open_writing:
            return OPEN
        if scope is Scope.WRITE and local and settings.open_writing:
            return OPEN
        if scope is Scope.READ and (settings.access.reading == "open" or (local and settings.open_reading)):
            return OPEN_READING
        if scope is Scope.METRICS and (settings.access.metrics == "open" or (local and settings.open_metrics)):
            return OPEN
        raise Unauthorized(f"a credential is required: {_HOW}", "missing")

    def _origin(self, request: HTTPConnection) -> Origin:
        """Return where a request came from; it is found out once for each request."""
        known: dict[str, Origin] = request.scope["extensions"]
        found = known.get(_ORIGIN)
        if found is None:
            proxies = self._settings.proxies
            found = known[_ORIGIN] = origin_of(request.scope, proxies.trusted, proxies.forwarded_header)
        return found

    def _bucket(self, origin: Origin) -> str:
        return self._bucket_of(origin.address)

    def _find_bucket(self, address: str) -> str:
        return "" if is_within(address, self._settings.limits.exempt) else bucket_of(address)

    def _caller(self, request: HTTPConnection, origin: Origin, grant: Grant) -> Caller:
        version = request.scope.get("http_version", "1.1")
        return Caller(grant, origin.address, f"HTTP/{version}", origin.secure, self._bucket(origin))

    def _refuse(self, error: Unauthorized, origin: Origin) -> None:
        """Count an invalid credential; raises TooMany over the limit. A missing credential does not count as an attempt."""
        self._metrics.refused(error.reason)
        if error.reason != "missing":
            self._limit("denied", self._bucket(origin))

    def _limit(self, name: Limit, who: str) -> None:
        """Count a request of `who`; raises TooMany over the limit. An empty `who` is not limited."""
        if who and (seconds := self._rates.hit(name, who)) > 0:
            self._metrics.limited(f"{name}_rate")
            raise _too_many(seconds)


def _too_many(seconds: float) -> TooMany:
    return TooMany(f"too many requests: try again in {max(1, math.ceil(seconds))} s", seconds)


def _host_of(host: str) -> str:
    """Return the host name in a Host header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
