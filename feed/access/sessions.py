"""Sessions: a signed cookie that carries a grant, because a browser's `EventSource` can send no header."""

import secrets
import time
from dataclasses import replace
from typing import Any

import jwt

from feed.access.grant import Grant, Scope
from feed.errors import Invalid, Unauthorized
from feed.model.query import parse_filter

COOKIE = "feed_session"
_AUDIENCE = "feed:session"


def claims_of(grant: Grant) -> dict[str, Any]:
    """Return a grant as JSON, to be signed or stored."""
    return {
        "name": grant.name, "scopes": sorted(grant.scopes), "filter": grant.filter_text, "issued_at": grant.issued_at,
        "expires_at": grant.expires_at, "max_streams": grant.max_streams, "session": grant.session, "token": grant.token,
    }  # fmt: skip


def grant_of(claims: dict[str, Any]) -> Grant:
    """Return the grant that JSON describes; raises Unauthorized if its filter can no longer be read."""
    try:
        wanted = parse_filter(claims["filter"])
    except Invalid:  # an unreadable filter must not become no filter
        raise Unauthorized(
            "the filter of this credential cannot be read by this version of the service", "malformed"
        ) from None
    return Grant(
        claims["name"], frozenset(Scope(one) for one in claims["scopes"]), wanted, claims["filter"], claims["issued_at"],
        claims["expires_at"], claims["max_streams"], claims["session"], claims["token"],
    )  # fmt: skip


def open_session(grant: Grant, secret: bytes, age: float) -> tuple[Grant, str]:
    """Return the grant of a new session, which lasts `age` seconds at the most, and the value of its cookie."""
    now = time.time()
    ends = now + age if grant.expires_at is None else min(now + age, grant.expires_at)
    opened = replace(grant, expires_at=ends, session=grant.session or secrets.token_urlsafe(12))
    claims = {"aud": _AUDIENCE, "iat": int(now), "exp": int(ends), "grant": claims_of(opened)}
    return opened, jwt.encode(claims, secret, "HS256")


def read_session(value: str, secret: bytes) -> Grant:
    """Return the grant that a cookie carries; raises Unauthorized."""
    try:
        claims = jwt.decode(
            value, secret, ["HS256"], audience=_AUDIENCE, options={"require": ["exp", "iat"], "verify_iat": False}
        )
        return grant_of(claims["grant"])
    except jwt.ExpiredSignatureError:
        raise Unauthorized("this session has expired: sign in again", "expired") from None
    except (jwt.PyJWTError, KeyError, TypeError, ValueError):
        raise Unauthorized("the session cookie is not valid: sign in again", "malformed") from None
