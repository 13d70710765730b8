"""Tickets: credentials that may appear in a URL, because each opens only one stream and is of little use to a thief."""

import hashlib
import re
import secrets
import time
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from feed.access.grant import Grant, Scope
from feed.access.sessions import grant_of
from feed.errors import Unauthorized
from feed.model.cursor import Cursor
from feed.model.query import parse_filter
from feed.settings.access import AccessSettings

_FORM = re.compile(r"feedticket_[0-9A-Za-z_-]{32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Use:
    """The first use of a ticket, which opened its stream."""

    resume_until: float
    """Until when the stream may come back; Unix time in seconds."""
    address: str
    """The address of the client that used the ticket."""
    position: int
    """The position in the log at which the stream began."""


@dataclass(frozen=True, slots=True)
class TicketRecord:
    """A ticket as the database keeps it."""

    holder: dict[str, Any]
    """The grant of whoever asked for the ticket, as JSON."""
    filter: str
    """The filter that the ticket is for, as a query string."""
    use: Use | None = None
    """The first use; None while the ticket has not been used."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What a valid ticket lets its bearer do."""

    digest: bytes
    grant: Grant
    first: bool
    """Whether the ticket has not been used yet; otherwise its stream comes back."""


class TicketBook(Protocol):
    """The store of the tickets. Every call raises DatabaseUnavailable while the database is away."""

    async def ticket(self, digest: bytes) -> TicketRecord | None:
        """Return a ticket that may still be used, or whose stream may still come back; None for any other."""

    async def redeem(self, digest: bytes, address: str, position: int, resume: float) -> datetime | None:
        """Use a ticket for the first time and return when that was; None if somebody else has used it before."""

    async def give_back(self, digest: bytes, redeemed_at: datetime | None, age: float) -> None:
        """Make a ticket good for a first use within `age` seconds, unless it was used by another than `redeemed_at`."""


def new_ticket() -> str:
    """Return the text of a new ticket, with 192 random bits."""
    return f"feedticket_{secrets.token_urlsafe(24)}"


def digest_of(ticket: str) -> bytes:
    """Return the digest that the database keeps of a ticket."""
    return hashlib.sha256(ticket.encode()).digest()


_REFUSAL = "this ticket is not valid or has been used: ask for a new one with POST /v1/tickets"


class Tickets:
    """Lets clients open streams with tickets.

    A ticket must be used within `ticket_age` seconds, and opens one stream. For `ticket_resume` seconds after that the same
    URL may come back, as browsers do by themselves: with a last event id that is not before the position at which the
    ticket's stream began, and from the address of the first use. After that time the stream ends.

    A stream that is refused, or that ends before it has begun, does not use its ticket up: its client was told to come back.
    """

    def __init__(self, book: TicketBook, settings: AccessSettings) -> None:
        self._book = book
        self._settings = settings

    async def admit(self, ticket: str, address: str, cursor: Cursor | None) -> Admission:
        """Return what a ticket lets its bearer read, without using the ticket; raises Unauthorized."""
        if _FORM.fullmatch(ticket) is None:
            raise _refused()
        digest = digest_of(ticket)
        found = await self._book.ticket(digest)
        if found is None:
            raise _refused()
        use, now = found.use, time.time()
        if use is not None and (
            cursor is None or cursor.position < use.position or (self._settings.ticket_bound and use.address != address)
        ):
            raise _refused()
        holder = grant_of(found.holder)
        ends = now + self._settings.ticket_resume if use is None else use.resume_until
        if holder.expires_at is not None:
            ends = min(ends, holder.expires_at)
        if ends <= now:  # otherwise a client that comes back at once, again and again, would read on
            raise _refused()
        wanted = parse_filter(found.filter)
        grant = replace(
            holder, scopes=frozenset({Scope.READ}), filter=wanted.narrowed(holder.filter), filter_text=found.filter,
            expires_at=ends,
        )  # fmt: skip
        return Admission(digest, grant, use is None)

    async def redeem(self, admission: Admission, address: str, began: int) -> datetime | None:
        """Use the ticket of a stream that begins at the position `began`; raises Unauthorized if somebody else was faster.

        Returns what `give_back` asks for; None if the stream came back, which uses nothing up.
        """
        if not admission.first:
            return None
        redeemed_at = await self._book.redeem(admission.digest, address, began, self._settings.ticket_resume)
        if redeemed_at is None:
            raise _refused()
        return redeemed_at

    async def give_back(self, admission: Admission, redeemed_at: datetime | None) -> None:
        """Let the client of a stream that never began come back with the same ticket, within `ticket_age` seconds."""
        if admission.first:
            await self._book.give_back(admission.digest, redeemed_at, self._settings.ticket_age)


def _refused() -> Unauthorized:
    return Unauthorized(_REFUSAL, "expired")
