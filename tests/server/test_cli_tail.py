"""`feed tail` as a process, against a server that follows a script."""

import json
import signal
from asyncio.subprocess import Process
from typing import Any

import pytest

from tests.server.scripted import Answer, Script, feed, frame, posted, problem, running

START = frame(retry=100) + frame(id="1.0")
GOODBYE = frame("goodbye", {"reason": "drain", "retry_ms": 100}, retry=100)


async def tail(*arguments: str) -> tuple[int | None, str, str]:
    """Run `feed tail` to its end; returns its exit code, stdout and stderr."""
    async with feed("tail", *arguments) as process:
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


async def line_of(process: Process) -> str:
    assert process.stdout
    return (await process.stdout.readline()).decode()


async def test_postings_are_lines_and_what_happens_to_the_connection_is_told_on_stderr() -> None:
    job: dict[str, Any] = {
        "location": "Berlin",
        "updated_at": "2026-01-02T03:04:05Z",
        "salary_max": 9,
        "currency": "EUR",
    }
    script = Script(
        Answer(START + posted(1, **job) + frame("synced", {"position": 1, "replayed": 1}) + GOODBYE),
        Answer(
            frame("reset", {"reason": "pruned", "snapshot": "/v1/jobs?"}, id="1.8")
            + posted(9, "closed", reason="expired", updated_at="2026-01-02T03:04:06Z")
        ),
    )
    async with running(script) as url:
        code, out, err = await tail(url, "--limit", "2", "--since", "2h")
    assert code == 0
    assert out.splitlines() == [
        "2026-01-02 03:04:05 + Job 1 · Acme · Berlin · 9 EUR",
        "2026-01-02 03:04:06 - Job 9 · Acme · closed: expired",
    ]
    assert err.splitlines() == [
        f"feed: connected to {url} (HTTP/1.1)",
        "feed: live; 1 replayed",
        "feed: the server says goodbye (drain)",
        "feed: the server said goodbye; reconnecting in 0.1 s",
        f"feed: connected to {url} (HTTP/1.1)",
        "feed: reset (pruned): some postings may have been missed; /v1/jobs? lists what there is; going on from 1.8",
    ]


async def test_no_backfill_is_asked_of_the_server_and_cannot_be_verified() -> None:
    script = Script(Answer(START + posted(1), then="silence"))
    async with running(script) as url:
        code, _, _ = await tail(url, "--no-backfill", "--limit", "1")
        assert (code, script.requests[0].query) == (0, {"backfill": ["false"]})
        code, _, err = await tail(url, "--no-backfill", "--verify")
    assert code == 2
    assert "leave out --no-backfill" in " ".join(err.split())


async def test_json_is_one_line_an_event_as_it_comes() -> None:
    script = Script(Answer(START + frame("reset", {"reason": "ahead"}, id="1.0") + posted(1), then="silence"))
    async with running(script) as url, feed("tail", url, "--json", "--http2") as process:
        assert json.loads(await line_of(process)) == {"id": "1.0", "event": "reset", "data": {"reason": "ahead"}}
        line = json.loads(await line_of(process))
        assert (line["id"], line["event"], line["data"]["title"]) == ("1.1", "posted", "Job 1")
    assert script.requests[0].http_version == "2"


async def test_every_option_that_chooses_reaches_the_server() -> None:
    script = Script(Answer(posted(1)))
    given = {
        "company": ["Acme", "Bcme"],
        "country": ["Germany"],
        "location": ["berlin", "paris"],
        "workplace": ["remote"],
        "employment_type": ["full-time"],
        "seniority": ["senior"],
        "tag": ["python"],
        "salary_min": ["0.0"],
        "currency": ["EUR"],
        "q": ["site rel"],
        "near": ["52.5,13.4"],
        "radius_km": ["10.0"],
        "event": ["posted", "closed"],
    }
    options = [
        word for name, values in given.items() for value in values for word in (f"--{name.replace('_', '-')}", value)
    ]
    async with running(script) as url:
        code, _, err = await tail(url, "--limit", "1", "--from", "earliest", *options)
    assert code == 0, err
    assert script.requests[0].query == {**given, "from": ["earliest"]}


async def test_following_can_start_after_an_event() -> None:
    script = Script(Answer(posted(8)))
    async with running(script) as url:
        await tail(url, "--limit", "1", "--last-event-id", "1.7")
    assert script.requests[0].headers["last-event-id"] == "1.7"


async def test_verify_passes_a_whole_stream_across_a_reconnect() -> None:
    script = Script(Answer(START + posted(1) + posted(2) + GOODBYE), Answer(frame(id="1.2") + posted(3)))
    async with running(script) as url:
        code, _, err = await tail(url, "--limit", "3", "--verify")
    assert code == 0
    assert "verified 3 events up to 1.3, none missing, doubled or out of order" in err


@pytest.mark.parametrize(
    ("body", "fault"),
    [(posted(1) + posted(3), "gap: 1.3 came after 1.1"), (posted(1) * 2, "duplicate: 1.1 came twice")],
)
async def test_verify_finds_what_is_missing_or_doubled(body: bytes, fault: str) -> None:
    async with running(Script(Answer(START + body))) as url:
        code, _, err = await tail(url, "--limit", "3", "--verify")
    assert code == 1
    assert err.splitlines()[-1].startswith(f"feed: {fault}")


async def test_ctrl_c_ends_with_0() -> None:
    script = Script(Answer(START + posted(1), then="silence"))
    async with running(script) as url, feed("tail", url, "--verify") as process:
        assert "Job 1" in await line_of(process)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert process.returncode == 0
    assert err.decode().splitlines()[-1].startswith("feed: verified 1 events")
    assert b"Traceback" not in err


@pytest.mark.parametrize("form", [[], ["--json"]])
async def test_a_reader_that_has_gone_ends_it_with_0(form: list[str]) -> None:
    # More than the pipe holds, so that the command is still writing when its reader goes.
    script = Script(Answer(b"".join(posted(n, title="x" * 1000) for n in range(1, 2000)), then="silence"))
    async with running(script) as url, feed("tail", url, *form) as process:
        await line_of(process)
        process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
        assert process.stderr
        err = await process.stderr.read()
        assert await process.wait() == 0
    assert b"Traceback" not in err
    assert b"Exception ignored" not in err


async def test_what_the_server_refuses_is_exit_code_1() -> None:
    script = Script(problem(422, {"field": "workplace", "message": "is none of them"}))
    async with running(script) as url:
        code, out, err = await tail(url, "--workplace", "office")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "workplace: is none of them" in err


async def test_what_is_no_feed_is_exit_code_3() -> None:
    async with running(Script(Answer(b"<html>", content_type="text/html"))) as url:
        code, _, err = await tail(url)
    assert code == 3
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--verify", "--employment-type", "full-time"], "--employment-type"),
        (["--verify", "--event", "posted"], "--event"),
        (["localhost:8000"], "localhost:8000"),
        (["--from", "yesterday"], "--from"),
        (["--limit", "0"], "--limit"),
        (["--locatoin", "berlin"], "--locatoin"),
    ],
)
async def test_a_wrong_command_is_exit_code_2(arguments: list[str], complaint: str) -> None:
    code, out, err = await tail(*arguments)
    assert (code, out) == (2, "")
    assert complaint in err
    assert "Traceback" not in err


async def test_help_shows_examples_and_exit_codes() -> None:
    code, out, _ = await tail("--help")
    assert code == 0
    assert "Examples:" in out
    assert "Exit codes:" in out


async def test_a_key_comes_from_the_option_else_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEED_KEY", "feedkey_environment")
    script = Script(Answer(posted(1)), Answer(posted(1)))
    async with running(script) as url:
        assert (await tail(url, "--limit", "1"))[0] == 0
        assert (await tail(url, "--limit", "1", "--key", "feedkey_option"))[0] == 0
    sent = [request.headers["authorization"] for request in script.requests]
    assert sent == ["Bearer feedkey_environment", "Bearer feedkey_option"]


@pytest.mark.parametrize(("status", "advice"), [(401, "--key or in FEED_KEY"), (403, "a key of another scope")])
async def test_a_key_that_is_not_good_enough_is_exit_code_1_and_one_line(status: int, advice: str) -> None:
    async with running(Script(problem(status))) as url:
        code, out, err = await tail(url, "--key", "feedkey_secret")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert f"answered {status}" in err
    assert advice in err
    assert "feedkey_secret" not in err
