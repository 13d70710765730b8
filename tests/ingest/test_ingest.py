"""The part of a service that fetches: it waits for sources and leadership, and says once what is not installed."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from feed.ingest.ingest import Ingest
from tests.conftest import make_settings
from tests.postgres.running import running
from tests.waiting import until


class FakeRuns:
    """Says that a source is due, or that there is none."""

    def __init__(self, due: float | None) -> None:
        self.due = due
        self.looks = 0
        self.claims = 0

    async def next_due(self) -> float | None:
        self.looks += 1
        return self.due

    async def claim(self, *_: Any) -> list[Any]:
        self.claims += 1
        return []


@pytest.mark.parametrize("due", [None, -1.0])
async def test_without_sources_or_without_the_libraries_nothing_is_claimed(
    due: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feed.ingest.ingest.missing_extra", lambda: "pip install 'jobfeed[ingest]'")
    runs, leading = FakeRuns(due), asyncio.Event()
    sequencer: Any = SimpleNamespace(leading=leading)
    nobody: Any = None
    settings = make_settings("postgresql://nobody", ingest_poll=0.001)
    with capture_logs() as logs:
        async with running(Ingest(settings, nobody, runs, sequencer)):  # type: ignore[arg-type]
            leading.set()
            await until(lambda: runs.looks > 3)
    assert runs.claims == 0
    said = [entry["error"] for entry in logs if entry["event"] == "sources are not fetched"]
    assert said == ([] if due is None else ["pip install 'jobfeed[ingest]'"])


async def test_only_a_leader_asks_for_sources() -> None:
    runs, leading = FakeRuns(-1.0), asyncio.Event()
    sequencer: Any = SimpleNamespace(leading=leading)
    nobody: Any = None
    settings = make_settings("postgresql://nobody", ingest_poll=0.001)
    async with running(Ingest(settings, nobody, runs, sequencer)):  # type: ignore[arg-type]
        for _ in range(20):
            await asyncio.sleep(0)
        assert runs.looks == 0
        leading.set()
        await until(lambda: runs.claims)
        leading.clear()
