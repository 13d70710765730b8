"""The published keys of a token issuer (RFC 7517), cached, and read again when they are old or a token names a new one."""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import orjson
import structlog

from feed.errors import ConfigurationError, DatabaseUnavailable, Unauthorized
from feed.settings.settings import is_loopback

log = structlog.get_logger(__name__)

_PAUSE = 10.0
"""Shortest time in seconds between two reads, however many unknown keys tokens name."""
_STALE = 86_400.0
"""Seconds for which cached keys are used while their URL does not answer."""
_TIMEOUT = 5.0
"""Seconds that one read may take."""
_LARGEST = 1024 * 1024
"""Bytes that the answer may have."""


class PublishedKeys:
    """The key set behind one URL; raises ConfigurationError unless the URL is https, or http on this machine."""

    def __init__(self, url: str, algorithm: str, age: float) -> None:
        where = urlsplit(url)
        if where.scheme != "https" and not (where.scheme == "http" and is_loopback(where.hostname or "")):
            raise ConfigurationError(f"FEED_JWT_JWKS_URL must begin with https://, not {url!r}")
        self._url = url
        self._algorithm = algorithm
        self._age = age
        self._keys: dict[str | None, Any] = {}
        self._read_at: float | None = None  # loop time of the last successful read
        self._tried_at: float | None = None
        self._reading = asyncio.Lock()

    async def key(self, header: Mapping[str, Any]) -> Any:
        """Return the key that a token's header names; raises Unauthorized, or DatabaseUnavailable without any keys."""
        wanted = header.get("kid")
        if self._old() or (wanted not in self._keys and not (wanted is None and len(self._keys) == 1)):
            await self._refresh(wanted)
        if wanted is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        if not isinstance(wanted, str) or wanted not in self._keys:
            raise Unauthorized("this token is signed with a key that its issuer does not publish", "unknown")
        return self._keys[wanted]

    def _old(self) -> bool:
        return self._read_at is None or asyncio.get_running_loop().time() - self._read_at > self._age

    async def _refresh(self, wanted: object) -> None:
        now = asyncio.get_running_loop().time
        async with self._reading:
            if self._tried_at is not None and now() - self._tried_at < _PAUSE:
                if self._read_at is None or now() - self._read_at > _STALE:
                    raise DatabaseUnavailable("the keys that verify tokens cannot be read now")
                return
            if not self._old() and wanted in self._keys:
                return  # another request has read them in the meantime
            self._tried_at = now()
            try:
                self._keys = await self._read()
                self._read_at = now()
            except (httpx.HTTPError, ValueError, jwt.PyJWTError) as error:
                log.warning("published keys could not be read", url=self._url, error=str(error)[:200])
                if self._read_at is None or now() - self._read_at > _STALE:
                    raise DatabaseUnavailable("the keys that verify tokens cannot be read now") from None

    async def _read(self) -> dict[str | None, Any]:
        async with httpx.AsyncClient(timeout=_TIMEOUT) as client, client.stream("GET", self._url) as answer:
            answer.raise_for_status()
            body = b""
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > _LARGEST:
                    raise ValueError("the answer is too large")
        return _keys_in(body, self._algorithm)


def _keys_in(body: bytes, algorithm: str) -> dict[str | None, Any]:
    """Return the keys of an answer that sign with one algorithm, by their id; raises ValueError if there is none."""
    answer = orjson.loads(body)
    entries = answer.get("keys") if isinstance(answer, dict) else None
    keys: dict[str | None, Any] = {}
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict) or not isinstance(name := entry.get("kid"), str | None):
            continue
        if entry.get("use", "sig") == "sig" and entry.get("alg", algorithm) == algorithm:
            try:
                keys[name] = jwt.PyJWK(entry, algorithm).key
            except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
                continue  # a key of another type, or a malformed one
    if not keys:
        raise ValueError(f"there is no key for {algorithm}")
    return keys
