"""From an API key to its grant, with a short-lived cache of what the database says."""

import asyncio
import hmac
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol
from weakref import WeakValueDictionary

from feed.access.grant import Grant, Scope, scopes_of
from feed.access.key import parse_key
from feed.access.revocations import Revocation
from feed.errors import DatabaseUnavailable, Unauthorized
from feed.model.query import parse_filter

_MOST = 10_000
"""Entries of the cache, which also holds keys that do not exist."""
_GRACE = 60.0
"""Seconds for which a cached entry is used while the database is away."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as the database keeps it. Times are Unix times in seconds."""

    id: str
    digest: bytes
    scope: Scope
    filter: str = ""
    max_streams: int | None = None
    note: str = ""
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None

    def grant(self) -> Grant:
        """Return what the key allows."""
        return Grant(
            f"key:{self.id}", scopes_of(self.scope), parse_filter(self.filter), self.filter, self.created_at,
            self.expires_at, self.max_streams,
        )  # fmt: skip


class KeyReader(Protocol):
    """The store of the keys. Its call raises DatabaseUnavailable while the database is away."""

    async def key(self, identity: str) -> KeyRecord | None:
        """Return the key with that id, revoked or not; None if there is none."""


class Keys:
    """Looks keys up. An entry is cached for `cache` seconds, unless a revocation removes it before (`forget`)."""

    def __init__(self, reader: KeyReader, cache: float) -> None:
        self._reader = reader
        self._cache = cache
        self._known: OrderedDict[str, tuple[float, KeyRecord | None, Grant | None]] = OrderedDict()
        self._looking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._forgotten = 0  # how often an entry was removed

    async def grant(self, text: str) -> Grant:
        """Return what a key allows; raises Unauthorized or DatabaseUnavailable."""
        key = parse_key(text)
        if key is None:
            raise Unauthorized("this is not a valid key: a character is missing or wrong", "malformed")
        record, grant = await self._known_or_read(key.id)
        if record is None or grant is None or not hmac.compare_digest(record.digest, key.digest):
            raise Unauthorized("this key is unknown", "unknown")
        return _in_force(record, grant)

    async def of_id(self, identity: str) -> Grant:
        """Return what a key allows whose secret was checked before; raises Unauthorized or DatabaseUnavailable."""
        record, grant = await self._known_or_read(identity)
        if record is None or grant is None:
            raise Unauthorized("this key is unknown", "unknown")
        return _in_force(record, grant)

    def knows(self, text: str) -> bool:
        """Whether the cache holds a key of that id, however old the entry is."""
        key = parse_key(text)
        found = None if key is None else self._known.get(key.id)
        return found is not None and found[1] is not None

    def hear(self, revocation: Revocation) -> None:
        """Forget the key that a revocation names."""
        if revocation.kind == "key":
            self.forget(revocation.subject)

    def forget(self, identity: str) -> None:
        """Remove a key from the cache, so that the next request asks the database."""
        self._known.pop(identity, None)
        self._forgotten += 1

    async def _known_or_read(self, identity: str) -> tuple[KeyRecord | None, Grant | None]:
        now = asyncio.get_running_loop().time()
        found = self._known.get(identity)
        if found is not None and found[0] > now - self._cache:
            return found[1:]
        lock = self._looking.setdefault(identity, asyncio.Lock())
        async with lock:  # one query for all requests that come at the same time
            found = self._known.get(identity)
            if found is not None and found[0] > now - self._cache:
                return found[1:]
            try:
                record = await self._read(identity)
            except DatabaseUnavailable:
                if found is not None and found[0] > now - _GRACE:
                    return found[1:]
                raise
            grant = None if record is None else record.grant()
            self._known[identity] = now, record, grant
            self._known.move_to_end(identity)
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
            return record, grant

    async def _read(self, identity: str) -> KeyRecord | None:
        """Read a key from the database, and again if an entry was removed meanwhile: the answer may be older than that."""
        while True:
            forgotten = self._forgotten
            record = await self._reader.key(identity)
            if forgotten == self._forgotten:
                return record


def _in_force(record: KeyRecord, grant: Grant) -> Grant:
    if record.revoked_at is not None:
        raise Unauthorized("this key was revoked", "revoked")
    if record.expires_at is not None and record.expires_at <= time.time():
        raise Unauthorized("this key has expired", "expired")
    return grant
