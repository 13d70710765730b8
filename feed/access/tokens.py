"""Tokens: JWTs (RFC 7519) that the configured issuer signed, with the one algorithm that is configured (RFC 8725)."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
from jwt.algorithms import get_default_algorithms

from feed.access.grant import Grant, Scope, scopes_of
from feed.access.jwks import PublishedKeys
from feed.errors import ConfigurationError, Forbidden, Invalid, Unauthorized
from feed.model.query import parse_filter
from feed.settings.access import JwtSettings

_LATEST = 253_402_300_799.0
"""The end of the year 9999 as a Unix time in seconds: an `exp` in milliseconds is beyond what a calendar can hold."""
_LONGEST = 255
"""Characters that a subject or an id may have (OpenID Connect Core, 2)."""
_REMEMBERED = 1_000
"""Tokens that are not verified again until they expire: one client opens many streams, and verifying takes some 50 µs."""


class Tokens:
    """Verifies tokens and reads what their claims grant: `scope`, `feed_filter` (a query string) and `feed_max_streams`."""

    def __init__(self, settings: JwtSettings) -> None:
        self._algorithm = settings.algorithm
        self._audience = settings.audience
        self._issuer = settings.issuer
        self._leeway = settings.leeway
        self._key: Any = None
        self._published: PublishedKeys | None = None
        self._verified: dict[str, Grant] = {}
        if self._algorithm is None:
            return
        if settings.jwks_url is not None:
            if self._algorithm == "HS256" or self._audience is None:
                raise ConfigurationError(
                    "published keys (FEED_JWT_JWKS_URL) need a public-key algorithm and FEED_JWT_AUDIENCE: without it, "
                    "tokens for other services would be let in"
                )
            self._published = PublishedKeys(settings.jwks_url, self._algorithm, settings.jwks_age)
        else:
            self._key = _local_key(settings, self._algorithm)

    @property
    def accepted(self) -> bool:
        """Whether the service accepts tokens at all."""
        return self._algorithm is not None

    async def grant(self, text: str) -> Grant:
        """Return what a token grants; raises Unauthorized if it is not valid, Forbidden if it has no scope of ours."""
        if self._algorithm is None:
            raise Unauthorized("this service accepts no tokens: send an API key (feedkey_...)", "unknown")
        known = self._verified.get(text)
        if known is not None and known.expires_at is not None and time.time() < known.expires_at:
            return known
        grant = await self._verify(text, self._algorithm)
        if self._published is None:  # a published key may be withdrawn
            self._verified[text] = grant
            if len(self._verified) > _REMEMBERED:
                del self._verified[next(iter(self._verified))]
        return grant

    async def _verify(self, text: str, algorithm: str) -> Grant:
        try:
            key = self._key if self._published is None else await self._published.key(jwt.get_unverified_header(text))
            claims = jwt.decode(
                text, key, [algorithm], audience=self._audience, issuer=self._issuer, leeway=self._leeway,
                options={"require": ["exp"], "verify_aud": self._audience is not None},
            )  # fmt: skip
        except jwt.ExpiredSignatureError:
            raise Unauthorized("this token has expired", "expired") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
            raise Unauthorized(f"this token is not valid: {str(error)[:200]}", "malformed") from None
        return _grant_of(claims, self._leeway)


def _grant_of(claims: Mapping[str, Any], leeway: float) -> Grant:
    """Return what verified claims grant. The grant ends `leeway` seconds after `exp`: until then the token is let in."""
    said = claims.get("scope", "")
    words = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
    scopes = [Scope(name) for word in words if (name := str(word).removeprefix("feed:")) in set(Scope)]
    if not scopes:
        raise Forbidden("the token's claim `scope` must name at least one of: " + ", ".join(Scope))
    text, most = claims.get("feed_filter", ""), claims.get("feed_max_streams")
    if not isinstance(text, str) or not (most is None or (type(most) is int and most > 0)):
        raise Unauthorized(
            "the token's claim `feed_filter` must be a query string, and `feed_max_streams` a whole number over 0",
            "malformed",
        )
    try:
        wanted = parse_filter(text)
    except Invalid as error:  # an unreadable filter must not become no filter
        raise Unauthorized(f"the token's claim `feed_filter` is not valid: {error}", "malformed") from None
    issued = claims.get("iat")
    return Grant(
        f"jwt:{_name_in(claims, 'sub')}", scopes_of(*scopes), wanted, text, None if issued is None else float(issued),
        min(float(claims["exp"]) + leeway, _LATEST), most, token=_name_in(claims, "jti") if "jti" in claims else None,
    )  # fmt: skip


def _name_in(claims: Mapping[str, Any], claim: str) -> str:
    """Return a claim that is a name, of a form that logs, JSON and the database can hold; raises Unauthorized."""
    name = claims.get(claim, "")
    if not isinstance(name, str) or len(name) > _LONGEST or not name.isprintable():
        raise Unauthorized(
            f"the token's claim `{claim}` must be text of at most {_LONGEST} characters, without control characters",
            "malformed",
        )
    return name


def _local_key(settings: JwtSettings, algorithm: str) -> Any:
    if settings.key is not None:
        text = settings.key.get_secret_value()
    else:
        try:
            text = Path(settings.key_file or "").read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"FEED_JWT_KEY_FILE cannot be read: {error}") from None
    text = text.strip()
    if algorithm == "HS256" and len(text.encode()) < 32:
        raise ConfigurationError("the secret of HS256 must have 32 bytes at least: try `openssl rand -base64 48`")
    if "PRIVATE KEY" in text:
        raise ConfigurationError("FEED_JWT_KEY must be the public key (BEGIN PUBLIC KEY), not the private one")
    try:
        return get_default_algorithms()[algorithm].prepare_key(text)
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise ConfigurationError(f"FEED_JWT_KEY does not fit {algorithm}: {error}") from None
