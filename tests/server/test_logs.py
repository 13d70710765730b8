"""What a running service says: one line for each stream and each write, an id that ties them to a request, no secrets."""

import asyncio
import json
import logging
import signal
import sys
from typing import Any

import asyncpg
import httpx
import pytest
import structlog

from feed.observability.logs import configure
from tests.processes import ServiceProcess, curling, serving
from tests.raw import raw_reading
from tests.server.postings import INSERT, MANY
from tests.server.scraping import Scrape
from tests.waiting import until

STREAM = "/v1/jobs/stream"
POSTING = {"title": "Baker", "company": "Acme", "url": "https://acme.example/1"}


async def logged(service: ServiceProcess, event: str, count: int = 1) -> list[dict[str, Any]]:
    """The first lines of one event, once they are there."""
    return await until(lambda: found if len(found := service.logged(event)) >= count else None, 30)


async def test_a_stream_leaves_one_line_that_says_what_it_was(dsn: str, database: "asyncpg.Connection[Any]") -> None:
    await database.execute(MANY, 3)
    async with serving(dsn, log_level="info") as service:
        url = f"{service.url}{STREAM}?from=earliest&company=Acme"
        async with curling(url, "-H", "X-Request-ID: from-the-client", "--http2-prior-knowledge") as curl:
            await curl.until("synced")
            await database.execute(INSERT, "live")
            await curl.until("posted")
        (line,) = await logged(service, "stream ended")
        service.signal(signal.SIGTERM)
        assert await service.ended() == 0
        assert len(service.logged("stream ended")) == 1
    assert line.pop("seconds") > 0
    assert line.pop("bytes") > 4 * 100
    assert line.pop("id") and line.pop("timestamp")
    assert line == {
        "event": "stream ended", "level": "info", "logger": "feed.fanout.streams", "key": "open", "address": "127.0.0.1",
        "protocol": "HTTP/2", "filter": "company=Acme", "events": 4, "replayed": 3, "reason": "client",
        "request_id": "from-the-client",
    }  # fmt: skip


async def test_the_reason_is_the_goodbye_that_was_said(dsn: str) -> None:
    async with serving(dsn, log_level="info", max_age=1.0) as service, curling(service.url + STREAM) as curl:
        await curl.rest()
        assert (await logged(service, "stream ended"))[0]["reason"] == "max_age"
        async with curling(service.url + STREAM) as last:
            await last.until("synced")
            service.signal(signal.SIGTERM)
            await last.rest()
        assert await service.ended() == 0
        assert service.logged("stream ended")[-1]["reason"] in ("drain", "max_age")


@pytest.mark.parametrize("wire", [True, False])
async def test_a_client_that_takes_nothing_is_said_to_have_stalled(
    dsn: str, database: "asyncpg.Connection[Any]", wire: bool
) -> None:
    async with (
        serving(dsn, log_level="info", send_timeout=1.0, wire=wire) as service,
        raw_reading(service.url, buffer=4096) as reader,
    ):
        await reader.until("synced")

        async def cut() -> list[dict[str, Any]]:
            await database.execute(MANY, 500)
            return service.logged("stream ended")

        (line,) = await until(cut, 60)
        assert line["reason"] == "stalled"


async def test_a_client_that_stays_past_the_deadline_is_said_to(dsn: str, database: "asyncpg.Connection[Any]") -> None:
    async with (
        serving(dsn, log_level="info", send_timeout=300.0, drain_deadline=1.0, drain_window=0.1) as service,
        raw_reading(service.url, buffer=4096) as reader,
    ):
        await reader.until("synced")
        await database.execute(MANY, 20_000)

        async def behind() -> bool:
            return (await Scrape.of(service.url))("feed_overruns_total") > 0

        await until(behind, 60)
        service.signal(signal.SIGTERM)
        assert await service.ended() == 0
        assert [line["reason"] for line in service.logged("stream ended")] == ["deadline"]


async def test_streams_leave_no_line_where_that_is_not_wanted(dsn: str) -> None:
    async with serving(dsn, log_level="info", log_streams=False) as service:
        async with curling(service.url + STREAM) as curl:
            await curl.until("synced")
        service.signal(signal.SIGTERM)
        assert await service.ended() == 0
        assert service.logged("drain ended") and not service.logged("stream ended")


async def test_a_write_leaves_a_line_and_a_read_leaves_none(dsn: str) -> None:
    body = json.dumps(POSTING).encode()
    async with (
        serving(dsn, log_level="info") as service,
        httpx.AsyncClient(base_url=service.url, trust_env=False) as client,
    ):
        await client.get("/v1/jobs")
        headers = {"content-type": "application/json", "x-request-id": "w-1"}
        assert (await client.post("/v1/jobs", content=body, headers=headers)).status_code == 201
        await client.post("/v1/jobs", content=b"[", headers=headers)
        first, second = await logged(service, "write", 2)
    assert (first["method"], first["route"], first["status"], first["bytes"]) == ("POST", "/v1/jobs", 201, len(body))
    assert first["request_id"] == "w-1" and first["seconds"] > 0
    assert second["status"] == 422


async def test_an_answer_of_ours_that_fails_is_a_warning(dsn: str, database: "asyncpg.Connection[Any]") -> None:
    async with (
        serving(dsn, log_level="warning") as service,
        httpx.AsyncClient(base_url=service.url, trust_env=False) as client,
    ):
        await database.execute("ALTER TABLE job RENAME TO job_away")
        answer = await client.get("/v1/jobs")
        assert answer.status_code == 503
        line = (await logged(service, "request failed"))[0]
        assert (line["level"], line["method"], line["route"], line["status"]) == ("warning", "GET", "/v1/jobs", 503)
        assert line["request_id"] == answer.headers["x-request-id"]


async def test_a_request_keeps_a_good_id_and_is_given_one_for_a_bad_one(dsn: str) -> None:
    good = ["a", "x" * 128, "6f0c-!~", '"quoted"']
    bad = ["", "x" * 129, "two words", "tab\tbed", "ümlaut".encode()]
    async with serving(dsn) as service:
        for http2 in (False, True):
            async with httpx.AsyncClient(base_url=service.url, trust_env=False, http1=not http2, http2=http2) as client:
                for sent in good:
                    answer = await client.get("/healthz", headers={"X-Request-ID": sent})
                    assert answer.headers.get_list("x-request-id") == [sent]
                given = []
                for sent in (*bad, None):
                    headers = {} if sent is None else {"X-Request-ID": sent}
                    given += (await client.get("/healthz", headers=headers)).headers.get_list("x-request-id")
                assert len(set(given)) == len(bad) + 1
                assert all(len(one) == 16 and one.isalnum() for one in given)


async def test_no_credential_is_ever_in_the_log(dsn: str, database: "asyncpg.Connection[Any]") -> None:
    secret = "S3CRET"
    credentials: dict[str, Any] = {
        "params": {"ticket": f"{secret}-ticket"},
        "headers": {
            "Authorization": f"Bearer {secret}-key",
            "Cookie": f"feed_session={secret}-cookie; other={secret}-o",
        },
    }
    async with (
        serving(dsn, log_level="debug", log_format="console") as service,
        httpx.AsyncClient(base_url=service.url, trust_env=False, timeout=30) as client,
    ):
        for method, path in (
            ("GET", "/v1/jobs"), ("GET", "/readyz"), ("GET", "/metrics"), ("POST", "/v1/jobs"), ("GET", "/v1/jobs/1"),
            ("DELETE", "/v1/jobs"), ("GET", "/nowhere"), ("POST", "/v1/tickets"), ("POST", "/v1/session"),
        ):  # fmt: skip
            await client.request(method, path, **credentials)
        await database.execute("DROP TABLE job CASCADE")  # now things fail, and say how
        for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/jobs")):
            cookie = {"Cookie": credentials["headers"]["Cookie"]}  # a bad one is no worse than none
            assert (await client.request(method, path, json=POSTING, headers=cookie)).status_code >= 500
        async with curling(f"{service.url}{STREAM}?ticket={secret}", "-H", f"Authorization: Bearer {secret}") as curl:
            await asyncio.wait_for(curl._process.wait(), 30)
        await until(lambda: b"request failed" in service.said, 30)
        service.signal(signal.SIGTERM)
        assert await service.ended() == 0
    assert b"POST" in service.said
    assert secret.encode() not in service.said + service.printed


@pytest.fixture
def restored() -> Any:
    """What `configure` changes, as it was before."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize(("form", "is_json"), [("json", True), ("auto", True), ("console", False)])
def test_the_form_is_json_unless_somebody_looks(
    form: str, is_json: bool, capsys: pytest.CaptureFixture[str], restored: None
) -> None:
    configure("info", form)
    structlog.get_logger("feed.test").info("hello", number=7)
    said = capsys.readouterr().err
    assert "\x1b" not in said  # colour is for terminals
    if is_json:
        assert json.loads(said)["number"] == 7
    else:
        assert "hello" in said and "number=7" in said


def test_a_traceback_shows_no_local_variables(capsys: pytest.CaptureFixture[str], restored: None) -> None:
    configure("info", "console")
    password = "".join(["hun", "ter2"])
    try:
        raise ValueError(len(password))
    except ValueError:
        structlog.get_logger("feed.test").exception("failed")
    said = capsys.readouterr().err
    assert "ValueError: 7" in said
    assert password not in said


def test_less_than_the_level_is_not_said(capsys: pytest.CaptureFixture[str], restored: None) -> None:
    configure("warning", "json")
    structlog.get_logger("feed.test").info("quiet")
    logging.getLogger("some.library").info("quiet")
    structlog.get_logger("feed.test").warning("loud")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["loud"]
    sys.stderr.flush()
