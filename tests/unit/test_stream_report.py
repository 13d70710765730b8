"""The stream report: its sums, what comes first, and how much of it another process is told."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
import pytest

from feed.access.caller import Caller
from feed.access.grant import Grant, Scope
from feed.fanout import stream_report as module
from feed.fanout.hub import Hub
from feed.fanout.stream_report import FILTER_LENGTH, Sort, StreamEntry, StreamReport, StreamReporter, first_of
from feed.settings.settings import load_settings


@dataclass
class FakeStream:
    """What a report reads of a stream."""

    id: str
    lag: int = 0
    opened_at: float = 0.0
    bytes: int = 0
    events: int = 0
    pushed: bool = True
    filters: str = ""
    caller: Caller = field(default_factory=lambda: Caller(protocol="HTTP/2"))


def reporter(*streams: FakeStream) -> StreamReporter:
    """A reporter on these streams."""
    return StreamReporter(Hub(load_settings().hub), cast("Any", list(streams)))


async def ids(streams: list[FakeStream], *sorts: Sort, limit: int = 100) -> list[str]:
    """The streams of a report, in its order."""
    return [entry.id for entry in (await reporter(*streams).report(sorts, limit)).entries]


@pytest.mark.parametrize("at_once", [1, 2, 1_000])
async def test_the_sums_are_over_all_streams_and_the_first_are_listed(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(module, "_SLICE", at_once)
    streams = [FakeStream(str(number), lag=number, pushed=number % 2 == 0) for number in range(5)]
    report = await reporter(*streams).report([Sort.LAG], 2)
    assert (report.streams, report.pushed, report.lag, report.protocols) == (5, 3, 4, {"HTTP/2": 5})
    assert [(entry.id, entry.lag) for entry in report.entries] == [("4", 4), ("3", 3)]


async def test_a_process_without_streams_reports_so() -> None:
    assert await reporter().report(list(Sort), 100) == StreamReport()


async def test_the_first_of_every_order_come_before_the_second_ones_and_each_once() -> None:
    streams = [
        FakeStream("lags", lag=9, opened_at=5),
        FakeStream("lags less", lag=8, opened_at=6, bytes=1),
        FakeStream("old", opened_at=1, bytes=2),
        FakeStream("big", opened_at=7, bytes=9, events=9),
    ]
    assert await ids(streams, *Sort, limit=1) == ["lags", "old", "big"]
    assert await ids(streams, *Sort, limit=2) == ["lags", "old", "big", "lags less"]
    assert await ids(streams, Sort.AGE) == ["old", "lags", "lags less", "big"]


async def test_many_streams_do_not_hold_up_the_event_loop() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    report = await reporter(*(FakeStream(str(number)) for number in range(5_000))).report(list(Sort), 100)
    counting.cancel()
    assert report.streams == 5_000
    assert turns >= len(Sort) * 5_000 / module._SLICE


async def test_a_name_that_json_cannot_carry_is_shown_as_far_as_it_can_be() -> None:
    stream = FakeStream("1", caller=Caller(Grant("jwt:\ud800" + "x" * 1_000, frozenset({Scope.READ}))))
    report = await reporter(stream).report([Sort.LAG], 1)
    assert report.entries[0].key == "jwt:?" + "x" * 195
    assert StreamReport.read(orjson.loads(report.document(10_000))) == report


def test_a_document_says_the_same_when_it_is_read() -> None:
    entry = StreamEntry(
        "1", "jwt:\x00é", "2001:db8::1", "tag=a", "HTTP/2", "2026-11-21T10:00:00Z", 41, 1, 2**40, 2**50, True
    )
    report = StreamReport(9, 2, 1, 5, 2**40, 2**50, {"HTTP/2": 2}, (entry, StreamEntry("2")))
    assert StreamReport.read(orjson.loads(report.document(10_000))) == report


def test_what_another_version_does_not_say_has_its_default_and_what_it_says_more_is_left_out() -> None:
    document = {"streams": 3, "novelty": 1, "entries": [{"id": "1", "novelty": 2}]}
    assert StreamReport.read(document) == StreamReport(streams=3, entries=(StreamEntry("1"),))
    assert StreamReport.read({}) == StreamReport()


@pytest.mark.parametrize("max_bytes", [1_000, 5_000, 64 * 1024])
def test_a_document_holds_as_many_of_the_first_entries_as_fit(max_bytes: int) -> None:
    entries = tuple(StreamEntry(str(number), key="é" * 200, filter="q=" + "x" * 100_000) for number in range(500))
    document = StreamReport(streams=500, entries=entries).document(max_bytes)
    assert len(document.encode()) <= max_bytes
    read = StreamReport.read(orjson.loads(document))
    assert read.streams == 500
    assert 0 < len(read.entries) < 500
    assert [entry.id for entry in read.entries] == [str(number) for number in range(len(read.entries))]
    assert {len(entry.filter) for entry in read.entries} == {FILTER_LENGTH}
    assert read.entries[0].filter.endswith("x…")


def test_entries_of_several_processes_are_merged_in_order() -> None:
    entries = [
        ("one", StreamEntry("a", since="2026-11-21T10:00:02Z", lag=1, bytes=5, events=1)),
        ("two", StreamEntry("b", since="2026-11-21T10:00:01Z", lag=1, bytes=6, events=3)),
        ("two", StreamEntry("c", since="2026-11-21T10:00:03Z", lag=7, bytes=4, events=2)),
    ]
    order = {sort: [f"{owner} {entry.id}" for owner, entry in first_of(entries, sort, 2)] for sort in Sort}
    assert order == {
        Sort.LAG: ["two c", "two b"],
        Sort.AGE: ["two b", "one a"],
        Sort.BYTES: ["two b", "one a"],
        Sort.EVENTS: ["two b", "two c"],
    }
