"""Priorities, which RFC 9113 (5.3) has given up: whatever a client says of them, every stream lives on."""

from typing import Any

import asyncpg
import pytest
from hyperframe.frame import Frame, PriorityFrame, RstStreamFrame

from tests.conftest import Running
from tests.h2client import STREAM, Exchange, H2Client, h2client
from tests.server.postings import INSERT
from tests.waiting import until

CANCEL = 8


def priority(stream_id: int, depends_on: int, weight: int = 15, exclusive: bool = False) -> PriorityFrame:
    """A PRIORITY frame."""
    return PriorityFrame(stream_id, depends_on=depends_on, stream_weight=weight, exclusive=exclusive)


async def opened(client: H2Client, count: int, before: int = 0) -> list[Exchange]:
    """Streams in a row, each depending on the one before and on it alone, as Chromium has it."""
    streams = []
    for _ in range(count):
        stream = await client.get(STREAM, depends_on=before, stream_weight=146, exclusive=True)
        streams.append(stream)
        before = stream.id
    for stream in streams:
        await stream.events("synced")
    return streams


async def all_live(client: H2Client, streams: list[Exchange], database: "asyncpg.Connection[Any]") -> None:
    """Every one of these gets what is posted now, and a new one can be opened."""
    await client.ping()
    late = await client.stream()
    await database.execute(INSERT, "still here")
    for stream in (*streams, late):
        assert (await stream.jobs(1))[0].data["title"] == "still here"
    assert client.goaway is None


async def test_a_page_that_closes_some_of_a_hundred_streams_keeps_the_others(
    server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    # Whoever closed, and whoever came in its place, stays in the row that stock Hypercorn keeps: deeper than it can go.
    async with h2client(server.url) as client:
        row = await opened(client, 100)
        closed = row[20:80:4]
        await client.send(*(RstStreamFrame(stream.id, CANCEL) for stream in closed))
        row = [stream for stream in row if stream not in closed]
        assert len(row) == 85
        await until(lambda: len(server.service.streams) == 85)
        row += await opened(client, 15, row[-1].id)
        await all_live(client, row, database)


SAID: dict[str, list[tuple[Any, ...]]] = {
    "cycle": [(1, 5), (3, 1), (5, 3), (1, 5)],
    "exclusive cycle": [(1, 5, 15, True), (5, 1, 15, True), (3, 5, 15, True), (5, 3, 255, True)],
    "on a stream to come": [(1, 101), (101, 103), (103, 101, 0, True), (7, 1)],
    "of a stream to come, exclusive": [(7, 0, 15, True), (9, 7, 15, True), (7, 9, 15, True)],
    "of a stream of ours": [(2, 1), (1, 2), (4, 2, 15, True)],
    "of streams without end": [(2 * number + 1, 0) for number in range(100, 1400)],
    "again and again": [(1, 3 + 2 * (number % 2), number % 256, number % 3 == 0) for number in range(2000)],
}


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
async def test_nothing_a_client_says_of_priorities_hurts_a_stream(
    server: Running, database: "asyncpg.Connection[Any]", said: list[tuple[Any, ...]]
) -> None:
    async with h2client(server.url) as client:
        streams = await opened(client, 3)
        frames: list[Frame] = [priority(*one) for one in said]
        await client.send(*frames)
        await all_live(client, streams, database)


async def test_a_priority_for_a_closed_stream_hurts_nobody(
    server: Running, database: "asyncpg.Connection[Any]"
) -> None:
    async with h2client(server.url) as client:
        closed, *streams = await opened(client, 4)
        ended = await (await client.get("/healthz")).response()
        await client.send(
            RstStreamFrame(closed.id, CANCEL), priority(closed.id, streams[0].id, 15, True),
            priority(streams[0].id, closed.id), priority(ended.id, closed.id), priority(closed.id, ended.id, 15, True),
        )  # fmt: skip
        await all_live(client, streams, database)


async def test_a_stream_that_depends_on_itself_is_a_fault_of_its_own_connection_at_most(
    server: Running, database: "asyncpg.Connection[Any]", capfd: pytest.CaptureFixture[str]
) -> None:
    async with h2client(server.url) as other:
        stream = await other.stream()
        for say in ("frame", "header"):
            async with h2client(server.url) as client:
                one = await client.stream()
                if say == "frame":
                    await client.send(priority(one.id, one.id))
                else:
                    await client.get(STREAM, depends_on=one.id + 2)
                await client.until(lambda: client.over or client.came[-1] == ("RSTSTREAM", one.id))
        await until(lambda: len(server.service.streams) == 1)
        await all_live(other, [stream], database)
    assert "Traceback" not in capfd.readouterr().err
