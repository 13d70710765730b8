"""All that /openapi.json promises, tried with requests that keep to it and requests that do not (schemathesis)."""

import asyncio
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode

from feed.settings.settings import Settings
from tests.conftest import run_server
from tests.fuzz import MORE, tries
from tests.processes import serving

EXAMPLES = int(MORE or 10)
"""Generated requests for each operation, besides those that try every bound of every parameter once."""
LARGE = 1024 * 1024
"""Bytes of a request's head: so much that none is refused unread (tests/server/test_wire_heads.py)."""
STREAM = "/v1/jobs/stream"
STREAMS = f"^({STREAM}|/v1/probe)$"
"""Answers that have no end, or take their time."""
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "unsupported_method", "missing_required_header",
)  # fmt: skip


@pytest.mark.timeout(300)
async def test_nothing_that_is_asked_makes_it_fail_or_answer_other_than_documented(
    settings: Settings, tmp_path: Path
) -> None:
    async with run_server(settings.changed(header_bytes=LARGE)) as server:
        await _ask_everything(server.url, tmp_path)


async def _ask_everything(url: str, tmp_path: Path) -> None:
    # With `on_error=skip` a body that is not valid is answered with 200, on purpose: tests/server/test_jobs.py.
    (tmp_path / "schemathesis.toml").write_text(
        '[[operations]]\ninclude-name = "POST /v1/jobs"\nparameters = { on_error = "abort" }\n'
    )
    # A process of its own: it must not share the event loop with the service, and its cache goes with its folder.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json",
        "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--exclude-path-regex", STREAMS,
        "--generation-deterministic", "--max-examples", str(EXAMPLES), "--continue-on-failure",
        "--request-timeout", "30", "--no-color",
        cwd=tmp_path, stdout=PIPE, stderr=STDOUT,
    )  # fmt: skip
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said.decode()
    assert b"Fuzzing (in" in said, said.decode()  # it got through


@pytest.mark.timeout(300)
async def test_a_stream_opens_or_is_refused_as_documented_whatever_it_is_asked(dsn: str) -> None:
    # A process of its own: hypothesis takes the service's jitter for its strategies' doing.
    async with serving(dsn, header_bytes=LARGE) as service:
        async with httpx.AsyncClient(base_url=service.url, trust_env=False) as client:
            document = (await client.get("/openapi.json")).json()
        documented = document["paths"][STREAM]["get"]["responses"]
        await asyncio.to_thread(_ask_the_stream, service.url, document, documented)


def _ask_the_stream(url: str, document: dict[str, Any], documented: dict[str, Any]) -> None:
    operation = schemathesis.openapi.from_dict(document)[STREAM]["GET"]
    met: set[int] = set()

    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:

        @tries(60)
        @given(st.sampled_from(GenerationMode).flatmap(lambda mode: operation.as_strategy(generation_mode=mode)))
        def ask(case: Any) -> None:
            asked = case.as_transport_kwargs(base_url=url)
            # The head and its first frame are all: a stream has no end.
            with client.stream("GET", STREAM, params=asked.get("params"), headers=asked["headers"]) as response:
                status = response.status_code
                assert str(status) in documented, status
                media = response.headers["content-type"].partition(";")[0]
                assert media in documented[str(status)]["content"], media
                if status == 200:
                    assert next(response.iter_raw()).startswith((b"retry: ", b"id: "))
                else:
                    assert response.read()
                    assert response.json()["status"] == status
            met.add(status)

        ask()
    assert met >= {200, 422}
