"""Credentials for tests of access: keys, tokens, and services that ask for them."""

import asyncio
import time
from typing import Any

import httpx
import jwt

from feed.access.grant import Scope
from feed.access.key import Key, new_key
from feed.settings.settings import Settings
from tests.conftest import Running, make_settings
from tests.reader import Frame, Reader

SECRET = "a secret of forty bytes, for tests alone"
"""What signs the tokens of these tests (HS256)."""
JOB: dict[str, Any] = {"title": "Baker", "company": "Acme", "url": "https://acme.example/1"}


def guarded(dsn: str, **more: Any) -> Settings:
    """Settings of a service on every address: it asks for credentials. Ends are heard sooner than by default."""
    return make_settings(dsn, **{"host": "0.0.0.0", "access_poll": 0.05, **more})


def with_tokens(dsn: str, **more: Any) -> Settings:
    """The same, where tokens are good too."""
    return guarded(dsn, **{"jwt_algorithm": "HS256", "jwt_key": SECRET, **more})


async def make_key(
    running: Running, scope: str = "read", *, wanted: str = "", seconds: float | None = None,
    max_streams: int | None = None,
) -> Key:  # fmt: skip
    """A key that the service's database knows."""
    key = new_key()
    await running.service.access.add_key(key, Scope(scope), wanted=wanted, seconds=seconds, max_streams=max_streams)
    return key


def token(*, key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token of alice's that lets her read for five minutes; a claim that is None is left out."""
    now = int(time.time())
    whole = {"sub": "alice", "scope": "read", "iat": now, "exp": now + 300} | claims
    return jwt.encode(
        {name: value for name, value in whole.items() if value is not None}, key, algorithm, headers=headers
    )


def bearer(credential: Key | str) -> dict[str, str]:
    """The header that carries it."""
    return {"Authorization": f"Bearer {credential.text if isinstance(credential, Key) else credential}"}


def asking(running: Running, credential: Key | str | None = None, **more: Any) -> httpx.AsyncClient:
    """A client with a credential, or without one."""
    headers = {} if credential is None else bearer(credential)
    return httpx.AsyncClient(base_url=running.url, headers=headers, trust_env=False, timeout=60, **more)


def check_denied(response: httpx.Response, status: int = 401) -> None:
    """A problem (RFC 9457) of that status; a 401 names what would do."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["detail"]
    assert (response.headers.get("www-authenticate") == "Bearer") == (status == 401)


async def goodbye(reader: Reader) -> Frame:
    """The frame that ends the stream; nothing is behind it."""
    async with asyncio.timeout(60):  # heartbeats would keep it waiting for ever
        frames = await reader.rest()
    assert frames, "the stream ended without a goodbye"
    assert frames[-1].event == "goodbye", frames
    assert frames[-1].retry == frames[-1].data["retry_ms"] > 0
    return frames[-1]


async def farewell(reader: Reader) -> str:
    """Why the stream ends."""
    reason: str = (await goodbye(reader)).data["reason"]
    return reason
