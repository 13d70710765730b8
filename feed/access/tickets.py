"""Tickets: what a URL may carry where no header and no cookie can go; worth one stream, and little to whoever finds it."""

import hashlib
import re
import secrets
import time
from dataclasses import dataclass, replace
from typing import Any, Protocol

from feed.access.grant import Grant, Scope
from feed.access.sessions import grant_of
from feed.errors import Unauthorized
from feed.model.cursor import Cursor
from feed.model.query import parse_filter
from feed.settings.access import AccessSettings

_FORM = re.compile(r"feedticket_[0-9A-Za-z_-]{32}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Redeemed:
    """A ticket whose stream may open: of the first use, or of a return. Times are Unix times in seconds."""

    holder: dict[str, Any]
    filter: str
    resume_until: float
    address: str
    position: int
    first: bool


class TicketBook(Protocol):
    """Where tickets are kept. Raises DatabaseUnavailable."""

    async def redeem(self, digest: bytes, address: str, position: int, resume: float) -> Redeemed | None:
        """Use it for the first time, or read what the first use left; None where it is not known or too old."""


def new_ticket() -> str:
    """The text of a ticket: 192 random bits."""
    return f"feedticket_{secrets.token_urlsafe(24)}"


def digest_of(ticket: str) -> bytes:
    """What the database keeps of it."""
    return hashlib.sha256(ticket.encode()).digest()


class Tickets:
    """Lets streams in by ticket.

    The first use must come within `ticket_age`, and there is only one. From then on, for `ticket_resume`, the same URL may
    come back, as browsers do by themselves: with a last id, not before where the ticket's stream began, and from the address
    of the first use. Then, at the latest, the stream ends.
    """

    def __init__(self, book: TicketBook, settings: AccessSettings) -> None:
        self._book = book
        self._settings = settings

    async def grant(self, ticket: str, address: str, cursor: Cursor | None, began: int) -> Grant:
        """What a ticket lets its bearer read; `began` is where its stream would begin. Raises Unauthorized."""
        refused = Unauthorized("this ticket is not good (any more): ask for a new one with POST /v1/tickets", "expired")
        if _FORM.fullmatch(ticket) is None:
            raise refused
        found = await self._book.redeem(digest_of(ticket), address, began, self._settings.ticket_resume)
        if found is None:
            raise refused
        if not found.first and (
            cursor is None
            or cursor.position < found.position
            or (self._settings.ticket_bound and found.address != address)
        ):
            raise refused
        holder = grant_of(found.holder)
        ends = found.resume_until if holder.expires_at is None else min(found.resume_until, holder.expires_at)
        if ends <= time.time():  # else who comes back at once, again and again, would read on
            raise refused
        wanted = parse_filter(found.filter)
        return replace(
            holder, scopes=frozenset({Scope.READ}), filter=wanted.narrowed(holder.filter), filter_text=found.filter,
            expires_at=ends,
        )  # fmt: skip
