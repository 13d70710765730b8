"""Revocations: credentials that end before they expire. Every process polls for them; fanout/streams.py ends the streams."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from feed.access.grant import Grant
from feed.errors import DatabaseUnavailable, Unauthorized
from feed.supervision import Backoff, supervised

_OVERLAP = 60.0
"""Seconds that each poll reads again, because a row may become visible after rows with a later time."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """The revocation of a key, a token's subject or id, a session, or a stream. Times are Unix times in seconds."""

    id: int
    kind: str
    subject: str
    at: float
    until: float | None = None


class Heard(Protocol):
    """What one poll has read, and when that was by the database's clock."""

    @property
    def found(self) -> list[Revocation]:
        """The revocations, in the order in which they were made."""

    @property
    def at(self) -> float:
        """The time of the poll; Unix time in seconds."""


class RevocationReader(Protocol):
    """The store of the revocations. Its call raises DatabaseUnavailable while the database is away."""

    async def revocations(self, since: float | None) -> Heard:
        """Return the revocations in force that were made after `since`; all of them for None."""


class Revocations:
    """Polls every `poll` seconds and tells its listeners each new revocation; remembers those of tokens and sessions."""

    def __init__(self, reader: RevocationReader, poll: float, leeway: float) -> None:
        self._reader = reader
        self._leeway = leeway
        self._poll = poll
        self._listeners: list[Callable[[Revocation], None]] = []
        self._seen: dict[int, float] = {}
        self._upto: float | None = None
        self._named: dict[str, dict[str, Revocation]] = {"subject": {}, "token": {}, "session": {}}
        self._backoff = Backoff(poll)

    def tell(self, listener: Callable[[Revocation], None]) -> None:
        """Call `listener` with each revocation that is new to this process."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Poll for ever."""
        await supervised("revocations", self._poll_for_ever, self._backoff)

    async def _poll_for_ever(self) -> None:
        while True:
            await self.look()
            self._backoff.reset()
            await asyncio.sleep(self._poll)

    async def look(self) -> None:
        """Poll once, for everything since the last poll; raises DatabaseUnavailable."""
        heard = await self._reader.revocations(None if self._upto is None else self._upto - _OVERLAP)
        for one in heard.found:
            if one.id not in self._seen:
                self._seen[one.id] = one.at
                if one.kind in self._named:
                    self._named[one.kind][one.subject] = one
                if self._upto is not None or one.at > heard.at - _OVERLAP:  # no stream is older than this process
                    for listener in self._listeners:
                        listener(one)
        self._upto = heard.at
        self._seen = {number: at for number, at in self._seen.items() if at > heard.at - 2 * _OVERLAP}
        for names in self._named.values():
            for subject in [name for name, one in names.items() if one.until is not None and one.until < heard.at]:
                del names[subject]

    def check(self, grant: Grant) -> None:
        """Raise Unauthorized for a revoked grant, DatabaseUnavailable before the first poll has succeeded."""
        if self._upto is None and (grant.session is not None or grant.name.startswith("jwt:")):
            raise DatabaseUnavailable("the list of revoked credentials has not been read yet")
        if any(self.concerns(one, grant) for one in self._candidates(grant)):
            raise Unauthorized("this credential was revoked", "revoked")

    def concerns(self, one: Revocation, grant: Grant) -> bool:
        """Whether a revocation ends a grant. That of a subject ends the tokens issued before it, plus the leeway."""
        return _concerns(one, grant, self._leeway)

    def _candidates(self, grant: Grant) -> list[Revocation]:
        named = self._named
        found = (
            named["subject"].get(grant.name.removeprefix("jwt:")) if grant.name.startswith("jwt:") else None,
            named["token"].get(grant.token) if grant.token is not None else None,
            named["session"].get(grant.session) if grant.session is not None else None,
        )
        return [one for one in found if one is not None]


def _concerns(one: Revocation, grant: Grant, leeway: float) -> bool:
    match one.kind:
        case "key":
            return grant.name == f"key:{one.subject}"
        case "subject":
            return grant.name == f"jwt:{one.subject}" and (
                grant.issued_at is None or grant.issued_at <= one.at + leeway
            )
        case "token":
            return grant.token == one.subject
        case "session":
            return grant.session == one.subject
        case _:
            return False
