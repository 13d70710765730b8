"""Connections that have ended leave nothing behind, and need no garbage collector for it."""

import gc
from collections import Counter
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from feed.hypercorn_adapter.exchange import Exchange
from feed.hypercorn_adapter.http1 import Http1
from feed.hypercorn_adapter.http2 import Http2
from feed.hypercorn_adapter.http2_frames import Limited
from feed.hypercorn_adapter.tcp import TcpConnection
from tests.conftest import make_settings, run_server
from tests.h2client import PREFACE, h2client
from tests.raw import raw_reading
from tests.server.callers import calling
from tests.server.postings import INSERT
from tests.waiting import until

OURS = (TcpConnection, Http1, Http2, Limited, Exchange)
"""What there is for each connection and each request."""


@pytest.fixture
def _no_collection() -> Iterator[None]:
    """No garbage collector while the test runs."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()


def left() -> Counter[str]:
    """What there is of a connection, by class, but for the test's own clients."""
    return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in OURS)


@pytest.mark.usefixtures("_no_collection")
async def test_the_memory_of_a_connection_that_has_ended_is_free_at_once(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with run_server(make_settings(dsn, send_timeout=0.5, close_timeout=0.2)) as running:
        before = left()
        async with (
            raw_reading(running.url) as http1,
            h2client(running.url) as http2,
            calling(running.url) as garbage,
            calling(running.url) as half,
            h2client(running.url, preface=False) as strange,
        ):
            await http1.until("synced")
            stream = await http2.stream()
            await database.execute(INSERT, "Baker")
            await http1.jobs(1)
            await stream.jobs(1)
            for path in ("/healthz", "/v1/jobs", "/nowhere"):
                await (await http2.get(path)).response()
            upload = await http2.get("/v1/jobs", "POST", ended=False)
            garbage.writer.write(b"nonsense\r\n\r\n")
            await garbage.closed()
            half.writer.write(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n[")
            strange.writer.write(PREFACE + b"\xff" * 100)
            await strange.closed()
            assert left()["TcpConnection"] > before["TcpConnection"]
            assert not upload.over
        await until(lambda: not left() - before or None)
