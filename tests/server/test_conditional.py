"""Answers with an ETag are not sent twice to who has them, and what is long is compressed for who takes that."""

import gzip
from typing import Any

import httpx
import pytest

from tests.conftest import Running
from tests.h2client import STREAM
from tests.waiting import until

POSTING = {"title": "Baker", "company": "Acme", "url": "https://acme.example/1", "description": "Bread. " * 400}


@pytest.fixture
async def job(server: Running) -> dict[str, Any]:
    """A posting with a long description; its event has reached the server, since a list names the last event."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        found: dict[str, Any] = (await client.post("/v1/jobs", json=POSTING)).json()
    await until(lambda: server.service.hub.head == 1)
    return found


@pytest.mark.parametrize("path", ["/v1/jobs/{id}", "/v1/jobs", "/", "/static/feed.js"])
async def test_an_answer_that_the_client_has_already_is_not_sent_again(
    server: Running, job: dict[str, Any], path: str
) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        first = await client.get(path.format(**job))
        assert first.status_code == 200
        assert first.headers["cache-control"] == "no-cache"
        etag = first.headers["etag"]
        for known in (etag, f'"other", {etag}', "*"):
            again = await client.get(path.format(**job), headers={"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == etag
        assert (await client.get(path.format(**job), headers={"If-None-Match": '"other"'})).content == first.content


async def test_an_answer_that_has_changed_is_sent_anew(server: Running, job: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
        path = f"/v1/jobs/{job['id']}"
        etags = [(await client.get(one)).headers["etag"] for one in (path, "/v1/jobs")]
        await client.post(f"{path}/close")
        for one, etag in zip((path, "/v1/jobs"), etags, strict=True):
            answer = await client.get(one, headers={"If-None-Match": etag})
            assert answer.status_code == 200
            assert answer.headers["etag"] != etag


@pytest.mark.parametrize("http2", [False, True])
async def test_what_is_long_is_compressed_for_clients_that_take_that_and_streams_never(
    server: Running, job: dict[str, Any], http2: bool
) -> None:
    async with httpx.AsyncClient(
        base_url=server.url, trust_env=False, http1=not http2, http2=http2, headers={"Accept-Encoding": "gzip"}
    ) as client:
        path = f"/v1/jobs/{job['id']}"
        plain = await client.get(path, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        async with client.stream("GET", path) as answer:
            sent = b"".join([piece async for piece in answer.aiter_raw()])
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["vary"] == "Accept-Encoding"
        assert int(answer.headers["content-length"]) == len(sent) < len(plain.content) / 4
        assert gzip.decompress(sent) == plain.content
        short = await client.get("/healthz")
        assert "content-encoding" not in short.headers
        async with client.stream("GET", STREAM) as stream:
            assert "content-encoding" not in stream.headers
            assert (await anext(stream.aiter_raw())).startswith(b"retry: ")
