"""Whatever is sent as a cookie, a token or a ticket: it grants what was granted, or is refused; nothing else happens."""

import asyncio
import time
from datetime import datetime
from functools import cache
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feed.access.grant import Grant, Scope, scopes_of
from feed.access.sessions import claims_of, grant_of, open_session, read_session
from feed.access.tickets import TicketRecord, Tickets, Use, digest_of, new_ticket
from feed.access.tokens import Tokens
from feed.errors import Forbidden, Unauthorized
from feed.model.cursor import Cursor
from feed.model.query import parse_filter
from feed.settings.settings import load_settings
from tests.fuzz import tries

SECRET = b"0123456789abcdef0123456789abcdef"
OTHER = b"fedcba9876543210fedcba9876543210"
HOLDER = Grant(
    "key:abc", scopes_of(Scope.READ), parse_filter("company=acme"), "company=acme", expires_at=time.time() + 10_000_000
)
any_text = st.text(
    st.one_of(st.characters(), st.characters(categories=["Cs"]), st.sampled_from("._-=eyJ")), max_size=80
)
json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@cache
def tokens() -> Tokens:
    return Tokens(load_settings(jwt_algorithm="HS256", jwt_key=SECRET.decode(), jwt_audience="feed").jwt)


def cookie() -> str:
    return open_session(HOLDER, SECRET, 1_000_000)[1]


@tries(300)
@given(any_text)
def test_text_that_nobody_signed_is_no_session(text: str) -> None:
    with pytest.raises(Unauthorized):
        read_session(text, SECRET)


@tries(300)
@given(st.integers(0, 2000), st.text(st.one_of(st.characters(), st.sampled_from("ABab-_=.")), max_size=2))
def test_a_cookie_that_was_changed_in_any_place_grants_no_more(anywhere: int, put: str) -> None:
    good = cookie()
    place = anywhere % len(good)
    changed = good[:place] + put + good[place + 1 :]
    try:
        granted = read_session(changed, SECRET)
    except Unauthorized:
        assert changed != good
    else:  # the last letter of a signature has bits that say nothing
        assert granted.scopes == HOLDER.scopes and granted.filter == HOLDER.filter


@tries(200)
@given(
    st.sampled_from([SECRET, OTHER]), st.dictionaries(st.sampled_from(["aud", "exp", "iat", "grant", "nbf", "x"]), json)
)
def test_a_signed_cookie_of_another_shape_is_no_session(secret: bytes, claims: dict[str, Any]) -> None:
    try:
        signed = jwt.encode(claims, secret, "HS256")
    except (TypeError, ValueError, OverflowError):  # cannot be written at all
        return
    with pytest.raises(Unauthorized):
        read_session(signed, SECRET)


@pytest.mark.parametrize("algorithm", ["none", "HS512", "HS384"])
def test_a_session_is_signed_in_one_way_only(algorithm: str) -> None:
    claims = jwt.decode(cookie(), SECRET, ["HS256"], audience="feed:session")
    signed = jwt.encode(claims, None if algorithm == "none" else SECRET * 2, algorithm)
    with pytest.raises(Unauthorized):
        read_session(signed, SECRET)


def test_a_session_is_no_token_and_a_token_no_session() -> None:
    # Not even where both happen to be signed with one secret.
    with pytest.raises(Unauthorized):
        asyncio.run(tokens().grant(cookie()))
    with pytest.raises(Unauthorized):
        read_session(jwt.encode({"aud": "feed", "exp": time.time() + 60, "scope": "admin"}, SECRET, "HS256"), SECRET)


claims = st.fixed_dictionaries(
    {"aud": st.one_of(st.just("feed"), st.just(["feed"]), json), "exp": st.one_of(st.just(4_000_000_000), json)},
    optional={
        "scope": st.one_of(st.sampled_from(["read", "admin", "feed:write metrics", "x"]), json),
        "feed_filter": st.one_of(st.sampled_from(["company=acme", "x=1", "\ud800", "q="]), json),
        "feed_max_streams": json, "sub": json, "jti": json, "iat": json, "nbf": json, "iss": json,
    },
)  # fmt: skip


@tries(500)
@given(claims, st.sampled_from([SECRET, SECRET, SECRET, OTHER]))
def test_a_token_grants_what_it_says_or_is_refused(said: dict[str, Any], secret: bytes) -> None:
    try:
        signed = jwt.encode(said, secret, "HS256")
    except (TypeError, ValueError, OverflowError):
        return
    try:
        granted = asyncio.run(tokens().grant(signed))
    except (Unauthorized, Forbidden) as refused:
        str(refused).encode()  # it goes into an answer
        return
    assert secret == SECRET
    assert said["aud"] == "feed" or "feed" in said["aud"]
    assert granted.filter == parse_filter(said.get("feed_filter", ""))
    assert granted.expires_at is not None and granted.expires_at > time.time() - 60
    assert grant_of(claims_of(granted)) == granted


@tries(300)
@given(any_text)
def test_text_that_nobody_signed_is_no_token(text: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        asyncio.run(tokens().grant(text))
    str(refused.value).encode()


class Book:
    """Knows one ticket."""

    def __init__(self, ticket: str, found: TicketRecord) -> None:
        self._digest = digest_of(ticket)
        self._found = found

    async def ticket(self, digest: bytes) -> TicketRecord | None:
        return self._found if digest == self._digest else None

    async def redeem(self, digest: bytes, address: str, position: int, resume: float) -> datetime | None:
        raise AssertionError("a look at a ticket must not use it")

    async def give_back(self, digest: bytes, redeemed_at: datetime | None, age: float) -> None:
        raise AssertionError("nothing was taken")


@tries(300)
@given(
    any_text,
    st.booleans(),
    st.integers(0, 20),
    st.sampled_from(["", "192.0.2.1", "192.0.2.2"]),
    st.none() | st.integers(0, 20),
)
def test_a_ticket_lets_in_once_and_back_only_as_it_may(
    text: str, first: bool, began: int, address: str, last: int | None
) -> None:
    ticket = new_ticket()
    use = None if first else Use(time.time() + 1000, "192.0.2.1", began)
    kept = TicketRecord(claims_of(HOLDER), "tag=go", use)
    tickets = Tickets(Book(ticket, kept), load_settings().access)
    cursor = None if last is None else Cursor(last)
    with pytest.raises(Unauthorized):
        asyncio.run(tickets.admit(text, address, cursor))
    may = first or (last is not None and last >= began and address == "192.0.2.1")
    if not may:
        with pytest.raises(Unauthorized):
            asyncio.run(tickets.admit(ticket, address, cursor))
        return
    admitted = asyncio.run(tickets.admit(ticket, address, cursor))
    assert admitted.first == first
    granted = admitted.grant
    assert granted.scopes == {Scope.READ}
    assert granted.filter == parse_filter("tag=go").narrowed(HOLDER.filter)
    assert granted.expires_at is not None and granted.expires_at <= time.time() + 3600
