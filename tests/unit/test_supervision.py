"""Supervised work is begun again when it fails, ends when it returns, and says why it waits."""

import asyncio
from typing import Any, cast

import pytest

from feed import supervision
from feed.access.revocations import Revocations
from feed.demo import Demo
from feed.errors import DatabaseRefused, DatabaseUnavailable
from feed.fanout.heartbeat import Heartbeat
from feed.fanout.hub import Hub
from feed.fanout.streams import Streams
from feed.settings.settings import load_settings
from feed.supervision import Backoff, supervised
from tests.logs import logged_by
from tests.waiting import until


class Failing:
    """Work that fails with each of `errors` in turn, then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> None:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)


async def test_work_that_fails_is_begun_again_until_it_returns() -> None:
    work = Failing(DatabaseUnavailable("away"), RuntimeError("a fault"), DatabaseRefused("no"))
    reasons: list[str] = []
    await supervised("work", work, Backoff(0.001), reasons.append)
    assert work.calls == 4
    assert reasons == ["away", "RuntimeError: a fault", "no"]


async def test_the_same_reason_is_logged_once_and_a_fault_each_time() -> None:
    work = Failing(*[DatabaseUnavailable("away")] * 3, *[RuntimeError("a fault")] * 2, DatabaseUnavailable("away"))
    with logged_by(supervision) as logged:
        await supervised("work", work, Backoff(0.001))
    assert [(line["event"], line.get("error")) for line in logged] == [
        ("background work waits", "away"),
        ("background work failed", None),
        ("background work failed", None),
        ("background work waits", "away"),
    ]
    assert {line["work"] for line in logged} == {"work"}


async def test_cancellation_ends_supervised_work() -> None:
    async def endless() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(supervised("work", endless, Backoff(1)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class RefusingStore:
    """A job store whose database refuses every write."""

    def __init__(self) -> None:
        self.writes = 0

    async def write(self, _: object) -> None:
        self.writes += 1
        raise DatabaseRefused("the feed's schema is not there")


async def test_the_demo_outlives_a_database_that_refuses() -> None:
    store = RefusingStore()
    task = asyncio.create_task(Demo(cast(Any, store)).run())
    await until(lambda: store.writes > 1)
    assert not task.done()
    task.cancel()


async def test_the_heartbeat_and_the_stream_watch_outlive_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(heartbeat=0.01, send_timeout=0.01)
    hub = Hub(settings.hub)
    hub.restart_at(1, 0)
    hub.ready = True
    streams = Streams(hub, settings.streams)
    beats, looks = 0, 0

    def beat(_: float) -> None:
        nonlocal beats
        beats += 1
        raise RuntimeError("a fault in the heartbeat")

    def look(_: object) -> Any:
        nonlocal looks
        looks += 1
        raise RuntimeError("a fault in the watch")

    monkeypatch.setattr(hub, "beat", beat)
    monkeypatch.setattr(Streams, "__iter__", look)
    tasks = [asyncio.create_task(Heartbeat(hub).run()), asyncio.create_task(streams.watch())]
    await until(lambda: beats > 1 and looks > 1)
    assert not any(task.done() for task in tasks)
    for task in tasks:
        task.cancel()


async def test_revocations_that_cannot_be_read_are_asked_for_again() -> None:
    class Away:
        def __init__(self) -> None:
            self.asked = 0

        async def revocations(self, since: float | None) -> Any:
            self.asked += 1
            raise DatabaseUnavailable("away")

    reader = Away()
    task = asyncio.create_task(Revocations(reader, 0.01, 0).run())
    await until(lambda: reader.asked > 1)
    assert not task.done()
    task.cancel()
