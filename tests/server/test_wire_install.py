"""Putting the wire into Hypercorn: only where everything is as we know it, and only for as long as we serve."""

import asyncio
import inspect
import json
from types import SimpleNamespace
from typing import Any

import asyncpg
import hypercorn.app_wrappers
import hypercorn.asyncio.run
import hypercorn.asyncio.tcp_server
import pytest

from feed.settings.settings import Settings
from tests.conftest import run_server
from tests.reader import reading
from tests.server.postings import INSERT


def of_another_make(owner: Any, name: str) -> type:
    """A class that does what the one at `owner.name` does, and is another."""
    return type(name, (getattr(owner, name),), {})


def with_a_parameter_more(owner: Any, name: str) -> Any:
    """A method that does what the one at `owner.name` does, and takes something else besides."""
    method = getattr(owner, name)

    if inspect.iscoroutinefunction(method):

        async def changed(self: Any, *given: Any, reason: str = "") -> Any:
            return await method(self, *given)

    else:

        def changed(self: Any, *given: Any, reason: str = "") -> Any:
            return method(self, *given)

    return changed


CHANGES = [
    (hypercorn.asyncio.run, "TCPServer", of_another_make),
    (hypercorn.asyncio.run, "asyncio", lambda *_: SimpleNamespace(**vars(asyncio))),
    (hypercorn.asyncio.tcp_server.TCPServer, "__init__", with_a_parameter_more),
    (hypercorn.app_wrappers.ASGIWrapper, "__init__", with_a_parameter_more),
]


def logged(captured: str) -> list[dict[str, Any]]:
    """What was logged."""
    return [json.loads(line) for line in captured.splitlines()]


@pytest.mark.parametrize(("owner", "name", "change"), CHANGES, ids=[f"{o.__name__}.{name}" for o, name, _ in CHANGES])
async def test_a_hypercorn_of_another_build_serves_without_the_wire_and_says_so_once(
    settings: Settings, database: "asyncpg.Connection[Any]", monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str], owner: Any, name: str, change: Any,
) -> None:  # fmt: skip
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, change(owner, name))
        async with (
            run_server(settings) as running,
            reading(running.url) as http1,
            reading(running.url, http2=True) as http2,
        ):
            for reader in (http1, http2):
                await reader.until("synced")
            await database.execute(INSERT, "Baker")
            for reader in (http1, http2):
                assert (await reader.jobs(1))[0].data["title"] == "Baker"
            running.stop.set()
            for reader in (http1, http2):
                assert [frame.event for frame in await reader.rest()] == ["goodbye"]
            await running.ended
        (said,) = logged(capfd.readouterr().err)
        assert said["level"] == "warning"
        assert name in said["strange"]
    async with run_server(settings) as running, reading(running.url, http2=True) as reader:
        await reader.until("synced")
    assert logged(capfd.readouterr().err) == []


async def test_hypercorn_is_as_it_was_once_nobody_serves(settings: Settings) -> None:
    def names() -> list[Any]:
        return [hypercorn.asyncio.run.TCPServer, hypercorn.asyncio.run.asyncio]

    before = names()
    async with run_server(settings) as stays:
        async with run_server(settings) as goes, reading(goes.url) as reader:
            await reader.until("synced")
        during = names()
        assert all(ours is not theirs for ours, theirs in zip(during, before, strict=True))
        async with reading(stays.url, http2=True) as reader:
            await reader.until("synced")
    assert names() == before
