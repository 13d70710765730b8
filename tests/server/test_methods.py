"""HEAD, OPTIONS and `Allow` (RFC 9110) at every path that the OpenAPI document names, and at those that it does not."""

from typing import Any

import httpx
import pytest

from tests.conftest import Running
from tests.reader import reading
from tests.server.credentials import JOB
from tests.waiting import until

STREAM = "/v1/jobs/stream"
FILES = ("/", "/static/app.js", "/docs", "/docs/files/swagger-ui.css", "/openapi.json")
OF_ONE_ANSWER = {"date", "x-request-id", "content-length"}  # the metrics differ by what was asked meanwhile

OF_THE_BODY = {"transfer-encoding", "content-encoding", "vary"}  # HEAD may leave out what a body is needed for (9.3.2)


def client_of(server: Running, **more: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=30, **more)


async def paths_of(client: httpx.AsyncClient) -> dict[str, set[str]]:
    """The methods of every path, by a path that exists: postings are 1, and 1 of `source`."""
    documented = (await client.get("/openapi.json")).json()["paths"]
    filled = {"{job_id}": "1", "{source}": "a", "{external_id}": "b", "{stream_id}": "x"}
    found: dict[str, set[str]] = {}
    for path, operations in documented.items():
        address = path
        for name, value in filled.items():
            address = address.replace(name, value)
        found[address] = {method.upper() for method in operations}
    return found | {path: {"GET"} for path in FILES}


def whole(methods: set[str]) -> set[str]:
    return methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())


async def test_head_answers_as_get_does_without_a_body(server: Running) -> None:
    async with client_of(server) as client:
        assert (await client.post("/v1/jobs", json=JOB)).status_code == 201
        await until(lambda: server.service.hub.head == 1)
        for path in [path for path, methods in (await paths_of(client)).items() if "GET" in methods]:
            async with client.stream("GET", path) as whole_answer:
                assert whole_answer.status_code == 200, path
            answer = await client.head(path)
            assert answer.status_code == 200, path
            assert answer.content == b""
            assert {
                name: value for name, value in answer.headers.items() if name not in OF_ONE_ANSWER | OF_THE_BODY
            } == {
                name: value for name, value in whole_answer.headers.items() if name not in OF_ONE_ANSWER | OF_THE_BODY
            }, path
        assert (await client.head("/v1/jobs/2")).status_code == 404
        assert (await client.head("/nowhere")).status_code == 404
        assert (await client.head("/v1/jobs?nonsense=1")).status_code == 422


@pytest.mark.parametrize("http2", [False, True])
async def test_head_of_the_stream_opens_none(server: Running, http2: bool) -> None:
    async with client_of(server, http1=not http2, http2=http2) as client:
        for _ in range(3):
            answer = await client.head(f"{STREAM}?since=1h")
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
        assert not server.service.streams
        assert not server.service.streams.opened
        assert (await client.head(f"{STREAM}?since=never")).status_code == 422
        ticket = (await client.post("/v1/tickets")).json()["url"]
        for _ in range(2):
            assert (await client.head(ticket)).status_code == 200
    async with reading(server.url, ticket.removeprefix(STREAM)) as reader:
        await reader.until("synced")


async def test_options_tells_what_a_path_allows(server: Running) -> None:
    async with client_of(server) as client:
        for path, methods in (await paths_of(client)).items():
            answer = await client.options(path)
            assert answer.status_code == 204, path
            assert answer.content == b""
            assert set(answer.headers["allow"].split(", ")) >= whole(methods), path
        assert (await client.options("/nowhere")).status_code == 404


async def test_a_method_that_is_not_allowed_is_told_which_are(server: Running) -> None:
    async with client_of(server) as client:
        paths = await paths_of(client)
        for path, methods in paths.items():
            for method in {"PATCH", "PUT", "DELETE", "PROPFIND"} - methods:
                answer = await client.request(method, path)
                if path == "/v1/jobs/1/close" and method == "PUT":
                    continue  # a posting of the source `1` that is called `close`
                assert answer.status_code == 405, (method, path)
                assert answer.json()["status"] == 405
                told = set(answer.headers["allow"].split(", "))
                assert told == set((await client.options(path)).headers["allow"].split(", "))
        for path, told in (
            ("/v1/jobs", "GET, HEAD, POST, OPTIONS"), ("/v1/session", "GET, HEAD, POST, DELETE, OPTIONS"),
            ("/v1/jobs/1", "GET, HEAD, OPTIONS"), ("/v1/jobs/1/close", "POST, PUT, OPTIONS"), ("/", "GET, HEAD, OPTIONS"),
            ("/static/app.js", "GET, HEAD, OPTIONS"), ("/openapi.json", "GET, HEAD, OPTIONS"),
            ("/v1/tickets", "POST, OPTIONS"),
        ):  # fmt: skip
            assert (await client.request("PROPFIND", path)).headers["allow"].split(", ") == told.split(", "), path


@pytest.mark.parametrize(("http2", "status"), [(False, 501), (True, 405)])
async def test_a_method_that_nobody_knows_is_refused(server: Running, http2: bool, status: int) -> None:
    async with client_of(server, http1=not http2, http2=http2) as client:
        assert (await client.request("BREW", "/v1/jobs")).status_code == status
        assert (await client.get("/healthz")).status_code == 200
