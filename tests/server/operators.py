"""What an operator's tools and routes show."""

from typing import Any

import httpx

from feed.access.grant import Scope
from feed.access.key import new_key
from feed.database.access import AccessStore
from tests.conftest import Running
from tests.waiting import until

PATH = "/v1/subscribers"


async def asked(
    url: str, method: str = "GET", path: str = PATH, key: str | None = None, **query: Any
) -> httpx.Response:
    """One answer."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        return await client.request(method, path, params=query, headers=headers)


async def listed(url: str, streams: int, **query: Any) -> dict[str, Any]:
    """The list, once it counts so many streams and nobody is missing."""

    async def whole() -> dict[str, Any] | None:
        response = await asked(url, **query)
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body if body["streams"] == streams and not body["missing"] else None

    return await until(whole, 60)


async def key_of(running: Running, scope: Scope) -> str:
    """A new key."""
    key = new_key()
    await AccessStore(running.service.store._pool).add_key(key, scope)
    return key.text
