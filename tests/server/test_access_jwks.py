"""Published keys (JWKS): read when they are needed, rotated, and remembered while their place is away."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from feed.access.tokens import Tokens
from feed.errors import DatabaseUnavailable, Unauthorized
from feed.settings.settings import load_settings
from tests.conftest import run_server
from tests.reader import reading
from tests.server.credentials import asking, bearer, check_denied, farewell, guarded
from tests.server.published import Publisher, publishing, signed
from tests.tokens import by_hand, public_pem

AGE = 300.0


class Clock:
    """The event loop's time, moved on by the test."""

    def __init__(self) -> None:
        self._real = asyncio.get_running_loop().time
        self.ahead = 0.0

    def __call__(self) -> float:
        return self._real() + self.ahead


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    async with publishing() as publisher:
        yield publisher


@pytest.fixture(scope="module")
def old() -> Any:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def new() -> Any:
    return rsa.generate_private_key(65537, 2048)


def checking(publisher: Publisher, algorithm: str = "RS256") -> Tokens:
    return Tokens(
        load_settings(jwt_algorithm=algorithm, jwt_jwks_url=publisher.url, jwt_audience="feed", jwks_age=AGE).jwt
    )


async def refused(tokens: Tokens, text: str) -> None:
    with pytest.raises(Unauthorized):
        await tokens.grant(text)


async def test_a_published_key_is_read_once_and_remembered(publisher: Publisher, old: Any, new: Any) -> None:
    publisher.publish(old=old)
    tokens = checking(publisher)
    assert publisher.reads == 0
    for _ in range(5):
        assert (await tokens.grant(signed(old, "old"))).name == "jwt:alice"
    await asyncio.gather(*(tokens.grant(signed(old, "old")) for _ in range(5)))
    assert publisher.reads == 1
    await refused(tokens, signed(new, "old"))
    await refused(tokens, signed(old, "old", aud="other"))


async def test_all_who_come_first_wait_for_one_read(publisher: Publisher, old: Any) -> None:
    publisher.publish(old=old)
    tokens = checking(publisher)
    grants = await asyncio.gather(*(tokens.grant(signed(old, "old")) for _ in range(20)))
    assert len(grants) == 20
    assert publisher.reads == 1


async def test_a_new_key_is_read_when_a_token_names_it(publisher: Publisher, old: Any, new: Any, clock: Clock) -> None:
    publisher.publish(old=old)
    tokens = checking(publisher)
    await tokens.grant(signed(old, "old"))
    publisher.publish(old=old, new=new)
    clock.ahead += 11
    await tokens.grant(signed(new, "new"))
    await tokens.grant(signed(old, "old"))
    assert publisher.reads == 2


async def test_names_that_nobody_published_cost_one_read_in_ten_seconds(
    publisher: Publisher, old: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: max(frozen, frozen + clock.ahead))
    publisher.publish(old=old)
    tokens = checking(publisher)
    await tokens.grant(signed(old, "old"))
    for n in range(30):
        await refused(tokens, signed(old, f"made up {n}"))
    assert publisher.reads == 1
    clock.ahead += 9.9
    await refused(tokens, signed(old, "made up"))
    assert publisher.reads == 1
    clock.ahead += 0.2
    for n in range(30):
        await refused(tokens, signed(old, f"made up {n}"))
    assert publisher.reads == 2
    await tokens.grant(signed(old, "old"))


async def test_a_key_that_was_taken_back_is_refused_once_the_keys_are_old(
    publisher: Publisher, old: Any, new: Any, clock: Clock
) -> None:
    publisher.publish(old=old, new=new)
    tokens = checking(publisher)
    await tokens.grant(signed(old, "old"))
    publisher.publish(new=new)
    clock.ahead += AGE + 1
    await refused(tokens, signed(old, "old"))
    await tokens.grant(signed(new, "new"))
    assert publisher.reads == 2


@pytest.mark.parametrize("way", ["gone", "error", "nonsense", "empty", "other shape", "no keys", "large", "redirect"])
async def test_known_keys_are_good_while_their_place_is_away_or_talks_nonsense(
    publisher: Publisher, old: Any, new: Any, clock: Clock, way: str
) -> None:
    publisher.publish(old=old)
    tokens = checking(publisher)
    await tokens.grant(signed(old, "old"))
    publisher.publish(new=new)
    match way:
        case "gone":
            await publisher.stop()
        case "error":
            publisher.status = 500
        case "redirect":
            publisher.status = 302
        case "nonsense":
            publisher.answer = b"<html>"
        case "empty":
            publisher.answer = b""
        case "other shape":
            publisher.answer = b'{"error": "slow down"}'
        case "no keys":
            publisher.answer = b'{"keys": []}'
        case "large":
            publisher.answer = b'{"keys": [], "x": "' + b"x" * 2_000_000 + b'"}'
    clock.ahead += AGE + 1
    await tokens.grant(signed(old, "old"))
    clock.ahead += 3600
    await tokens.grant(signed(old, "old"))
    await refused(tokens, signed(new, "new"))
    if way == "gone":
        await publisher.start()
    publisher.answer, publisher.status = None, 200
    clock.ahead += 11
    await tokens.grant(signed(new, "new"))
    await refused(tokens, signed(old, "old"))
    if way == "gone":
        return
    assert publisher.reads == 4


@pytest.mark.parametrize(
    "answer",
    [
        b"{}", b"[]", b"null", b'{"keys": null}', b'{"keys": "a"}', b'{"keys": {"kid": "old"}}', b'{"keys": [null]}',
        b'{"keys": [[]]}', b'{"keys": ["a"]}', b'{"keys": [{}]}', b'{"keys": [{"kid": [], "kty": "RSA"}]}', b"\xff",
    ],
)  # fmt: skip
async def test_an_answer_of_any_shape_is_only_an_answer_without_keys(
    publisher: Publisher, old: Any, answer: bytes
) -> None:
    publisher.answer = answer
    with pytest.raises(DatabaseUnavailable):
        await checking(publisher).grant(signed(old, "old"))


async def test_one_key_of_an_odd_shape_spoils_no_other(publisher: Publisher, old: Any) -> None:
    publisher.publish(old=old)
    good = publisher.keys[0]
    odd: list[Any] = [
        None, "a", [], {}, {"kid": "x", "kty": "RSA", "n": 7, "e": "AQAB"}, {"kid": ["x"], **{k: good[k] for k in "ne"}},
        {**good, "kid": {"a": 1}}, {**good, "kid": "short", "n": ""}, {"kid": "oct", "kty": "oct", "k": "c2VjcmV0"},
        {"kid": "other", "kty": "future"},
    ]  # fmt: skip
    publisher.keys = [*odd, good, *odd]
    tokens = checking(publisher)
    await tokens.grant(signed(old, "old"))
    for kid in ("x", "short", "oct", "other"):
        await refused(tokens, signed(old, kid))


async def test_a_key_that_is_for_something_else_is_not_taken(publisher: Publisher, old: Any, new: Any) -> None:
    publisher.publish(enc=old, ps=old, good=new)
    publisher.keys[0]["use"] = "enc"
    publisher.keys[1]["alg"] = "RS512"
    tokens = checking(publisher)
    await tokens.grant(signed(new, "good"))
    await refused(tokens, signed(old, "enc"))
    await refused(tokens, signed(old, "ps"))


async def test_the_algorithm_is_ours_to_choose_not_the_tokens_nor_the_publishers(
    publisher: Publisher, old: Any
) -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    publisher.publish("ES256", curve=curve)
    published = publisher.keys
    publisher.publish(old=old)
    publisher.keys += published
    publisher.keys.append({"kid": "shared", "kty": "oct", "alg": "HS256", "k": "c2VjcmV0" * 8})
    tokens = checking(publisher)
    await tokens.grant(signed(old, "old"))
    await refused(tokens, signed(curve, "curve", "ES256"))
    await refused(tokens, signed(b"secret" * 8, "shared", "HS256"))
    claims = {"exp": 32_503_680_000, "scope": "read", "aud": "feed"}
    for name in ("HS256", "RS256"):
        header = {"alg": name, "kid": "old"}
        await refused(tokens, by_hand(header, claims, public_pem(old).encode()))
        await refused(tokens, by_hand(header, claims, json.dumps(publisher.keys[0]).encode()))
        await refused(tokens, by_hand({"alg": name, "jwk": publisher.keys[0]}, claims, b"secret"))
        await refused(tokens, by_hand({"alg": "none", "kid": "old"}, claims))


async def test_without_a_name_a_token_is_checked_with_the_only_key_there_is(
    publisher: Publisher, old: Any, new: Any, clock: Clock
) -> None:
    publisher.publish(old=old)
    tokens = checking(publisher)
    await tokens.grant(signed(old, None))
    await refused(tokens, signed(new, None))
    publisher.publish(old=old, new=new)
    clock.ahead += AGE + 1
    await refused(tokens, signed(old, None))


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
async def test_other_public_key_algorithms_are_published_too(publisher: Publisher, algorithm: str) -> None:
    key: Any = ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()
    publisher.publish(algorithm, one=key)
    assert (await checking(publisher, algorithm).grant(signed(key, "one", algorithm))).name == "jwt:alice"


async def test_a_service_follows_the_keys_of_its_publisher(
    publisher: Publisher, dsn: str, old: Any, new: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feed.access.jwks._PAUSE", 0.0)
    settings = guarded(
        dsn, jwt_algorithm="RS256", jwt_jwks_url=publisher.url, jwt_audience="feed", jwks_age=0.001,
    )  # fmt: skip
    publisher.publish(old=old)
    await publisher.stop()
    async with run_server(settings) as running:
        first, second = signed(old, "old", exp=int(time.time()) + 300), signed(new, "new")
        async with asking(running, first) as client:
            # Nothing is known yet: this passes, so it is no 401, and a browser's stream must not be given a 503.
            check_denied(await client.get("/v1/jobs"), 503)
            async with reading(running.url, headers=bearer(first)) as reader:
                assert await farewell(reader) == "unavailable"
            await publisher.start()
            assert (await client.get("/v1/jobs")).status_code == 200
            async with reading(running.url, headers=bearer(first)) as reader:
                await reader.until("synced")
            async with asking(running, second) as stranger:
                check_denied(await stranger.get("/v1/jobs"))
                publisher.publish(new=new)
                assert (await stranger.get("/v1/jobs")).status_code == 200
                check_denied(await client.get("/v1/jobs"))
                check_denied(await client.get("/v1/jobs/stream"))
                await publisher.stop()
                assert (await stranger.get("/v1/jobs")).status_code == 200
                await publisher.start()
