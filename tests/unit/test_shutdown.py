"""The wrapper around Hypercorn's shutdown: drains first, puts everything back, and steps aside where it does not fit."""

import asyncio
import multiprocessing
import signal
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import hypercorn.asyncio.run as run
import pytest
from hypercorn.utils import ShutdownError

from feed.hypercorn_adapter.shutdown import drained


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


async def test_the_drain_comes_before_hypercorn_learns_of_the_end() -> None:
    original, trigger, order = run.raise_shutdown, asyncio.Event(), []

    async def drain() -> None:
        order.append("drained")

    with drained(drain):
        waiting = asyncio.create_task(run.raise_shutdown(trigger.wait))
        trigger.set()
        with pytest.raises(ShutdownError):
            await waiting
        order.append("ended")
    assert order == ["drained", "ended"]
    assert run.raise_shutdown is original


async def test_a_worker_drains_on_a_signal_of_its_own_and_is_deaf_once_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    # Hypercorn's master terminates every worker as soon as the first has left.
    monkeypatch.setattr(multiprocessing, "parent_process", object)
    done = asyncio.Event()

    async def drain() -> None:
        done.set()

    with drained(drain):
        waiting = asyncio.create_task(run.raise_shutdown(asyncio.Event().wait))
        signal.raise_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            await done.wait()
            with pytest.raises(ShutdownError):
                await waiting
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


@pytest.mark.parametrize("other", [None, lambda: None, "two parameters"])
async def test_another_hypercorn_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, other: Any) -> None:
    async def two(trigger: Callable[..., Awaitable[None]], more: object) -> None:
        raise AssertionError

    there = two if isinstance(other, str) else other
    monkeypatch.setattr(run, "raise_shutdown", there)

    async def drain() -> None:
        raise AssertionError

    with drained(drain):
        assert run.raise_shutdown is there
