"""`feed top` as a process: plain where nobody watches, live on a terminal."""

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from feed.settings.settings import load_settings
from tests.conftest import Running
from tests.reader import reading
from tests.server.operators import listed
from tests.server.scripted import Answer, Script, feed, problem, running
from tests.waiting import until

PROCESS = {
    "id": "aa",
    "host": "node",
    "pid": 7,
    "worker": 1,
    "version": "1",
    "started_at": "2026-11-21T09:00:00.000Z",
    "streams": 2,
    "pushed": 1,
    "head": 9,
    "lag": 4,
}


def stream(number: int, **more: Any) -> dict[str, Any]:
    """One stream of an answer."""
    return {
        "id": f"aa-{number}", "key": "key:k", "address": "192.0.2.1", "filter": "tag=a", "protocol": "HTTP/2",
        "since": "2026-11-21T10:00:00.000Z", "position": 5, "lag": 4, "events": 1234, "bytes": 56_789, "pushed": False,
        "process": "aa", "host": "node", "worker": 1,
    } | more  # fmt: skip


def process(seen_at: str, events: int, **more: Any) -> dict[str, Any]:
    """One process of an answer."""
    return PROCESS | {"seen_at": seen_at, "events": events, "bytes": events * 100} | more


def answer(*streams: dict[str, Any], at: str = "2026-11-21T11:01:02.000Z", events: int = 0, **more: Any) -> Answer:
    """What a server says."""
    body = {
        "at": at, "streams": len(streams), "pushed": 0, "pulled": len(streams), "protocols": {"HTTP/2": len(streams)},
        "lag": 4, "processes": [process(at, events)], "missing": [], "fault": None,
        "subscribers": list(streams),
    } | more  # fmt: skip
    return Answer(json.dumps(body).encode(), content_type="application/json")


async def top(*arguments: str) -> tuple[int | None, str, str]:
    """Run `feed top` to its end; returns its exit code, stdout and stderr."""
    async with feed("top", *arguments) as process:
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


class Screen:
    """What a process writes to its terminal."""

    def __init__(self, process: Process, terminal: int) -> None:
        self.process = process
        self.shown = b""
        self._terminal = terminal
        asyncio.get_running_loop().add_reader(terminal, self._read)

    def _read(self) -> None:
        try:
            said = os.read(self._terminal, 65536)
        except OSError:  # it is closed on the other side
            said = b""
        if not said:
            self.close()
        self.shown += said

    def close(self) -> None:
        """Look no longer."""
        asyncio.get_running_loop().remove_reader(self._terminal)

    def resize(self, rows: int, columns: int) -> None:
        """As a window manager does."""
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@asynccontextmanager
async def on_terminal(*arguments: str) -> AsyncIterator[Screen]:
    """Run `feed top` on a terminal of 30 lines and 160 columns."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 160, 0, 0))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "feed", "top", *arguments, stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment | {"TERM": "xterm-256color", "NO_PROXY": "*"}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    screen = Screen(process, ours)
    try:
        yield screen
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        screen.close()
        os.close(ours)


async def test_without_a_terminal_it_is_a_plain_table_once() -> None:
    odd = stream(2, key="jwt:\x1b[2Jx", filter="", lag=12_345, pushed=True, worker=None, address="")
    script = Script(answer(stream(1), odd))
    async with running(script) as url:
        code, out, err = await top(url, "--sort", "bytes", "--limit", "7")
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    head, second, _, names, first, last = out.splitlines()
    assert head == f"feed top {url}  11:01:02Z  2 streams (HTTP/2 2)  pushed 0  pulled 2"
    assert second == "largest lag 4  processes 1"
    assert " ".join(names.split()) == "ID KEY ADDRESS PROTOCOL AGE LAG POSITION EVENTS BYTES▼ MODE WHERE FILTER"
    assert " ".join(first.split()) == "aa-1 key:k 192.0.2.1 HTTP/2 1h01m 4 5 1,234 56.8 kB pulled node/1 tag=a"
    assert last.split()[-3:] == ["pushed", "node", "(everything)"]
    assert "12,345" in last
    assert script.requests[0].query == {"sort": ["bytes"], "limit": ["7"]}


async def test_who_is_missing_is_named() -> None:
    seen_at = "2026-11-21T11:00:42.000Z"
    missing = [{"id": "bb", "host": "far", "pid": 9, "worker": 2, "version": "1", "seen_at": seen_at}]
    async with running(Script(answer(missing=missing, fault="no database"))) as url:
        _, out, _ = await top(url, "--once")
    assert "no word from far/2 (pid 9) since 11:00:42Z: its streams are not counted" in out
    assert "only the process that answered is counted: no database" in out


async def test_the_age_of_the_oldest_figures_is_told() -> None:
    at, before = "2026-11-21T11:01:02.000Z", "2026-11-21T11:00:58.400Z"
    async with running(Script(answer(at=at, processes=[process(at, 0), process(before, 0, id="bb")]))) as url:
        _, out, _ = await top(url, "--once")
    assert out.splitlines()[1] == "largest lag 4  processes 2  figures up to 4s old"


async def test_rates_are_of_the_time_between_two_reports_of_a_process_not_between_two_answers() -> None:
    """The process that answers reports 100 events in each second; the other, 500 in the five between its two reports."""
    answers = []
    for second in range(60):
        at, written = (f"2026-11-21T11:01:{number:02d}.000Z" for number in (second, second - second % 5))
        others = process(written, (second - second % 5) * 100, id="bb")
        answers.append(answer(at=at, processes=[process(at, second * 100), others]))
    async with running(Script(*answers)) as url, on_terminal(url, "--interval", "0.2") as screen:
        await until(lambda: b"11:01:07Z" in screen.shown, 60)
        shown = re.findall(r"(\S+) events/s", screen.shown.decode())
        assert set(shown) == {"100", "200"}


async def test_json_is_the_servers_answer_and_a_line_each() -> None:
    script = Script(answer(stream(1)), answer(), answer())
    async with running(script) as url:
        code, out, _ = await top(url, "--json", "--once")
        assert (code, json.loads(out)["subscribers"][0]["id"]) == (0, "aa-1")
        async with feed("top", url, "--json", "--interval", "0.2") as process:
            assert process.stdout
            for _ in range(2):
                assert json.loads(await process.stdout.readline())["streams"] == 0
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
            assert (process.returncode, err) == (0, b"")


async def test_a_real_server_is_shown(server: Running) -> None:
    async with reading(server.url, "?tag=a") as reader:
        await reader.until("synced")
        await listed(server.url, 1)
        code, out, err = await top(server.url)
    assert code == 0, err
    assert "1 streams (HTTP/1.1 1)  pushed 1  pulled 0" in out
    assert out.splitlines()[-1].endswith("tag=a")


async def test_on_a_terminal_it_is_live_follows_the_size_and_ctrl_c_ends_it_with_0() -> None:
    answers = [answer(stream(1), at=f"2026-11-21T11:01:{n:02d}.000Z", events=n * 500) for n in range(60)]
    async with running(Script(*answers)) as url, on_terminal(url, "--interval", "0.5") as screen:
        await until(lambda: b"500 events/s" in screen.shown and b"50.0 kB/s" in screen.shown, 30)
        assert screen.shown.startswith(b"\x1b[?1049h")
        assert b"aa-1" in screen.shown
        before = len(screen.shown)
        screen.resize(10, 40)
        # What is drawn behind it fits: no line is longer, counted without what steers the terminal.
        await until(lambda: any(0 < len(line) <= 40 for line in lines(screen.shown[before:])[1:]), 30)
        screen.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            assert await screen.process.wait() == 0
        await until(lambda: b"\x1b[?1049l" in screen.shown, 30)
        assert b"Traceback" not in screen.shown


def lines(shown: bytes) -> list[str]:
    """The lines drawn, without colours and the like."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace")).split("\r\n")


async def test_a_server_that_goes_away_is_waited_for_on_the_terminal() -> None:
    script = Script(answer(stream(1)), problem(503), answer(stream(2), at="2026-11-21T11:02:00.000Z"))
    async with running(script) as url, on_terminal(url, "--interval", "0.5") as screen:
        await until(lambda: b"answered 503" in screen.shown and b"aa-2" in screen.shown, 60)
        screen.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            assert await screen.process.wait() == 0


@pytest.mark.parametrize(("status", "advice"), [(401, "FEED_KEY"), (403, "a key of another scope")])
async def test_what_the_server_refuses_is_exit_code_1_and_one_line(status: int, advice: str) -> None:
    async with running(Script(problem(status))) as url:
        code, out, err = await top(url, "--key", "feedkey_secret")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert advice in err
    assert "feedkey_secret" not in err


async def test_nobody_there_is_exit_code_3_and_one_line() -> None:
    async with running(Script()) as url:
        pass
    code, out, err = await top(url)
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "Traceback" not in err


async def test_the_key_goes_along_and_does_not_keep_a_service_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FEED_KEY", "feedkey_x")
    load_settings()
    script = Script(answer())
    async with running(script) as url:
        assert (await top(url))[0] == 0
    assert script.requests[0].headers["authorization"] == "Bearer feedkey_x"
