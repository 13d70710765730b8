"""Tokens checked with a local key: one algorithm, the times and names they carry, and what they grant."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from feed.access.grant import Scope
from feed.access.tokens import Tokens
from feed.errors import ConfigurationError, Forbidden, Unauthorized
from feed.settings.settings import load_settings
from tests.tokens import by_hand, public_pem

SECRET = "a secret that is long enough for every algorithm there is, and for tests alone"
ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")
MAKERS: dict[str, Callable[[], Any]] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048), "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}  # fmt: skip


def private_pem(key: Any) -> str:
    text: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return text.decode()


@pytest.fixture(scope="module")
def pairs() -> dict[str, tuple[Any, str]]:
    """By algorithm: what signs, and the text that checks."""
    made = {name: maker() for name, maker in MAKERS.items()}
    return {"HS256": (SECRET, SECRET)} | {name: (key, public_pem(key)) for name, key in made.items()}


def checking(algorithm: str = "HS256", key: str = SECRET, **settings: object) -> Tokens:
    return Tokens(load_settings(jwt_algorithm=algorithm, jwt_key=key, **settings).jwt)


def signed(key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token for reading, of a minute; a claim that is None is left out."""
    whole = {"scope": "read", "exp": int(time.time()) + 60} | claims
    return jwt.encode({name: value for name, value in whole.items() if value is not None}, key, algorithm)


async def refused(tokens: Tokens, text: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        await tokens.grant(text)
    assert text not in str(caught.value) or not text


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_the_algorithm_that_was_chosen_is_good(
    pairs: dict[str, tuple[Any, str]], tmp_path: Path, algorithm: str
) -> None:
    private, text = pairs[algorithm]
    file = tmp_path / "key.pem"
    file.write_text(f"{text}\n")
    whole = signed(private, algorithm, sub="alice", jti="7", iat=1_000, scope="read write")
    for tokens in (checking(algorithm, text), Tokens(load_settings(jwt_algorithm=algorithm, jwt_key_file=file).jwt)):
        grant = await tokens.grant(whole)
        assert (grant.name, grant.token, grant.issued_at) == ("jwt:alice", "7", 1_000.0)
        assert grant.scopes == {Scope.READ, Scope.WRITE}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_any_other_algorithm_or_key_is_refused(
    pairs: dict[str, tuple[Any, str]], algorithm: str
) -> None:
    tokens = checking(algorithm, pairs[algorithm][1])
    for other in ALGORITHMS:
        if other != algorithm:
            await refused(tokens, signed(pairs[other][0], other))
    stranger: Any = f"another {SECRET}" if algorithm == "HS256" else MAKERS[algorithm]()
    await refused(tokens, signed(stranger, algorithm))
    if algorithm == "HS256":
        await refused(tokens, signed(SECRET, "HS384"))
        await refused(tokens, signed(SECRET, "HS512"))
    if algorithm == "RS256":  # the same key, used otherwise
        for other in ("RS384", "RS512", "PS256"):
            await refused(tokens, signed(pairs[algorithm][0], other))


async def test_a_token_without_a_signature_is_refused(pairs: dict[str, tuple[Any, str]]) -> None:
    claims = {"scope": "admin", "exp": int(time.time()) + 60}
    for algorithm in ALGORITHMS:
        tokens = checking(algorithm, pairs[algorithm][1])
        for name in ("none", "None", "NONE", "", None, 7):
            await refused(tokens, by_hand({"typ": "JWT", "alg": name}, claims))
        await refused(tokens, by_hand({"typ": "JWT", "alg": algorithm}, claims))
        whole = signed(pairs[algorithm][0], algorithm)
        await refused(tokens, whole.rpartition(".")[0] + ".")


async def test_the_public_key_is_no_secret_to_sign_with(pairs: dict[str, tuple[Any, str]]) -> None:
    claims = {"scope": "admin", "exp": int(time.time()) + 60}
    for algorithm in ("RS256", "ES256", "EdDSA"):
        text = pairs[algorithm][1]
        tokens = checking(algorithm, text)
        for secret in (text, text.strip(), f"{text.strip()}\n"):
            for name in ("HS256", algorithm):
                await refused(tokens, by_hand({"typ": "JWT", "alg": name}, claims, secret.encode()))


async def test_a_letter_changed_anywhere_is_refused() -> None:
    tokens, whole = checking(), signed()
    for place in range(0, len(whole) - 2, 3):  # the last letter carries bits that nobody reads
        other = "A" if whole[place] != "A" else "B"
        await refused(tokens, whole[:place] + other + whole[place + 1 :])
    for text in ("", ".", "..", "a.b.c", "é.é.é", whole * 2, f"{whole}.x", "\ud800", "x" * 100_000):
        await refused(tokens, text)


async def test_exp_is_required_and_kept_and_nbf_is_too() -> None:
    now = int(time.time())
    tokens = checking(jwt_leeway=0)
    assert (await tokens.grant(signed(exp=now + 60, nbf=now - 1))).expires_at == now + 60
    for claims in (
        {"exp": None}, {"exp": now - 1}, {"exp": "soon"}, {"exp": [now + 60]}, {"exp": -(10**30)},
        {"nbf": now + 60}, {"nbf": "later"}, {"iat": now + 3600},
    ):  # fmt: skip
        await refused(tokens, signed(**claims))


async def test_clocks_may_differ_by_the_leeway() -> None:
    now = int(time.time())
    tokens = checking(jwt_leeway=100)
    assert (await tokens.grant(signed(exp=now - 30))).expires_at == now + 70
    await tokens.grant(signed(nbf=now + 30))
    await refused(tokens, signed(exp=now - 300))
    await refused(tokens, signed(nbf=now + 300))


async def test_audience_and_issuer_must_be_ours_where_they_are_set() -> None:
    tokens = checking(jwt_audience="feed", jwt_issuer="https://id.example")
    good = {"aud": "feed", "iss": "https://id.example"}
    await tokens.grant(signed(**good))
    await tokens.grant(signed(**good | {"aud": ["other", "feed"]}))
    for bad in ({"aud": "other"}, {"aud": None}, {"aud": []}, {"iss": "https://evil.example"}, {"iss": None}):
        await refused(tokens, signed(**good | bad))


async def test_scopes_may_have_a_prefix_or_be_a_list_and_others_are_passed_over() -> None:
    tokens = checking()
    for scope, scopes in (
        ("read", {Scope.READ}), ("feed:read", {Scope.READ}), ("openid read profile", {Scope.READ}),
        ("read write", {Scope.READ, Scope.WRITE}), ("feed:write", {Scope.READ, Scope.WRITE}),
        (["feed:read", "email"], {Scope.READ}), ("admin", set(Scope)), ("feed:metrics", {Scope.METRICS}),
    ):  # fmt: skip
        assert (await tokens.grant(signed(scope=scope))).scopes == scopes, scope
    for scope in (None, "", "openid", "READ", "reading", "feed:", "other:read", "feed:feed:read", 7, {"read": 1}, []):
        with pytest.raises(Forbidden):
            await tokens.grant(signed(scope=scope))


async def test_a_token_may_carry_a_filter_and_a_bound_of_streams() -> None:
    grant = await checking().grant(signed(feed_filter="company=Acme&tag=go", feed_max_streams=2))
    assert (grant.filter.company, grant.filter.tag) == (("acme",), ("go",))
    assert (grant.filter_text, grant.max_streams) == ("company=Acme&tag=go", 2)


@pytest.mark.parametrize(
    "claims",
    [
        {"feed_filter": "compny=acme"}, {"feed_filter": "workplace=moon"}, {"feed_filter": 7},
        {"feed_filter": ["company=acme"]}, {"feed_filter": "q=a&q=b"}, {"feed_max_streams": 0},
        {"feed_max_streams": -1}, {"feed_max_streams": "2"}, {"feed_max_streams": True}, {"feed_max_streams": 1.5},
    ],
)  # fmt: skip
async def test_a_filter_that_is_not_understood_never_means_everything(claims: dict[str, Any]) -> None:
    await refused(checking(), signed(**claims))


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "a\x00b"}, {"sub": "\ud800"}, {"sub": "a" * 256}, {"jti": "\ud800"}, {"jti": "a" * 256},
        {"feed_filter": "company=a\x00b"}, {"feed_filter": "company=\ud800"},
    ],
)  # fmt: skip
async def test_what_neither_json_nor_the_database_can_carry_is_refused(claims: dict[str, Any]) -> None:
    await refused(checking(), signed(**claims))


async def test_an_end_beyond_all_calendars_is_an_end_all_the_same() -> None:
    for exp in (int(time.time()) * 1000, 10**17, 1e300):
        grant = await checking().grant(signed(exp=exp))
        assert grant.expires_at is not None
        assert datetime.fromtimestamp(grant.expires_at, UTC).year > 2100


async def test_without_an_algorithm_no_token_is_good() -> None:
    tokens = Tokens(load_settings().jwt)
    assert not tokens.accepted
    await refused(tokens, signed())


def test_a_key_that_does_not_fit_is_refused_at_the_start(pairs: dict[str, tuple[Any, str]], tmp_path: Path) -> None:
    rsa_private, rsa_public = pairs["RS256"]
    for settings, says in (
        ({"jwt_algorithm": "HS256", "jwt_key": "x" * 31}, "32 bytes"),
        ({"jwt_algorithm": "HS256", "jwt_key": rsa_public}, "HS256"),
        ({"jwt_algorithm": "RS256", "jwt_key": SECRET}, "RS256"),
        ({"jwt_algorithm": "ES256", "jwt_key": rsa_public}, "ES256"),
        ({"jwt_algorithm": "EdDSA", "jwt_key": pairs["ES256"][1]}, "EdDSA"),
        ({"jwt_algorithm": "RS256", "jwt_key": private_pem(rsa_private)}, "public key"),
        ({"jwt_algorithm": "RS256", "jwt_key_file": tmp_path / "none"}, "FEED_JWT_KEY_FILE"),
        ({"jwt_algorithm": "HS256"}, "tokens need"),
        ({"jwt_key": SECRET}, "tokens need"),
        ({"jwt_algorithm": "HS256", "jwt_key": SECRET, "jwt_jwks_url": "https://id.example"}, "tokens need"),
        ({"jwt_algorithm": "none", "jwt_key": SECRET}, "FEED_JWT_ALGORITHM"),
        ({"jwt_algorithm": "HS384", "jwt_key": SECRET * 2}, "FEED_JWT_ALGORITHM"),
        ({"jwt_algorithm": "RS256", "jwt_jwks_url": "https://id.example"}, "FEED_JWT_AUDIENCE"),
        ({"jwt_algorithm": "HS256", "jwt_jwks_url": "https://id.example", "jwt_audience": "feed"}, "public-key"),
        ({"jwt_algorithm": "RS256", "jwt_jwks_url": "http://id.example", "jwt_audience": "feed"}, "https://"),
        ({"jwt_algorithm": "RS256", "jwt_jwks_url": "http://127.0.0.1.id.example/", "jwt_audience": "a"}, "https://"),
        ({"jwt_algorithm": "RS256", "jwt_jwks_url": "file:///etc/keys", "jwt_audience": "feed"}, "https://"),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=says) as caught:
            Tokens(load_settings(**settings).jwt)
        assert SECRET not in str(caught.value)
        assert "PRIVATE" not in str(caught.value)
    for url in ("http://127.0.0.1:9/", "http://localhost/keys", "http://[::1]/keys", "https://id.example/keys"):
        Tokens(load_settings(jwt_algorithm="RS256", jwt_jwks_url=url, jwt_audience="feed").jwt)


async def test_a_token_that_was_verified_before_is_refused_once_it_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(load_settings(jwt_algorithm="HS256", jwt_key=SECRET, jwt_leeway=0).jwt)
    text = jwt.encode({"sub": "a", "scope": "read", "exp": time.time() + 3600}, SECRET, "HS256")
    assert (await tokens.grant(text)).name == (await tokens.grant(text)).name == "jwt:a"
    later = time.time() + 3601
    monkeypatch.setattr("feed.access.tokens.time.time", lambda: later)
    monkeypatch.setattr("jwt.api_jwt.datetime", SimpleNamespace(now=lambda tz: datetime.fromtimestamp(later, tz)))
    with pytest.raises(Unauthorized, match="expired"):
        await tokens.grant(text)


async def test_only_so_many_verified_tokens_are_remembered() -> None:
    tokens = Tokens(load_settings(jwt_algorithm="HS256", jwt_key=SECRET).jwt)
    for number in range(1_005):
        claims = {"sub": str(number), "scope": "read", "exp": int(time.time()) + 3600}
        assert (await tokens.grant(jwt.encode(claims, SECRET, "HS256"))).name == f"jwt:{number}"
    assert len(tokens._verified) == 1_000
