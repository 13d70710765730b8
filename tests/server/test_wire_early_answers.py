"""Requests that are answered before they have come: at once, whole, and with little read behind the answer."""

import asyncio
from contextlib import suppress

import pytest
from hyperframe.frame import DataFrame

from tests.conftest import make_settings, run_server
from tests.h2client import h2client
from tests.server.callers import Caller, calling

MIB = 1024 * 1024
HEAD = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"
BAD = "Authorization: Bearer nonsense\r\n"


async def answer(call: Caller) -> tuple[bytes, bytes]:
    """The head of the next response, and its body."""
    async with asyncio.timeout(20):
        head = (await call.reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return head, await call.reader.readexactly(length)


@pytest.mark.parametrize("wire", [True, False])
async def test_a_bad_credential_is_refused_before_the_body_has_come(dsn: str, wire: bool) -> None:
    async with run_server(make_settings(dsn, wire=wire)) as running, calling(running.url) as call:
        call.writer.write((HEAD % (1024 * MIB, BAD)).encode() + b"x" * 1000)
        head, body = await answer(call)
        assert head.startswith(b"http/1.1 401")
        assert b'"status":401' in body
        if wire:
            assert b"\r\nconnection: close\r\n" in head


async def test_little_is_read_behind_an_answer(dsn: str) -> None:
    async with run_server(make_settings(dsn)) as running, calling(running.url) as call:
        call.writer.write((HEAD % (1024 * MIB, BAD)).encode())
        head, _ = await answer(call)
        assert head.startswith(b"http/1.1 401")
        sent = 0
        async with asyncio.timeout(40):
            with suppress(ConnectionError):
                while sent < 200 * MIB:
                    call.writer.write(b"x" * 65_536)
                    sent += 65_536
                    await call.writer.drain()
                    await asyncio.sleep(0)
        assert sent < 50 * MIB  # the kernel's buffers take some


async def test_who_sends_nothing_more_behind_an_answer_is_closed(dsn: str) -> None:
    async with run_server(make_settings(dsn, close_timeout=0.3)) as running, calling(running.url) as call:
        call.writer.write((HEAD % (1024 * MIB, BAD)).encode())
        assert (await answer(call))[0].startswith(b"http/1.1 401")
        assert await call.closed() == b""


async def test_a_client_that_sends_all_before_it_reads_has_the_whole_answer(dsn: str) -> None:
    async with run_server(make_settings(dsn)) as running, calling(running.url) as call:
        body = b"x" * 900_000
        call.writer.write((HEAD % (len(body), BAD)).encode())
        for place in range(0, len(body), 10_000):
            call.writer.write(body[place : place + 10_000])
            await asyncio.sleep(0.001)
        assert (await answer(call))[0].startswith(b"http/1.1 401")


async def test_a_connection_goes_on_behind_a_problem_whose_request_had_come(dsn: str) -> None:
    async with run_server(make_settings(dsn)) as running, calling(running.url) as call:
        for _ in range(2):
            call.writer.write((HEAD % (9, "")).encode() + b"not JSON!")
            head, _ = await answer(call)
            assert head.startswith(b"http/1.1 422")
            assert b"connection: close" not in head
        assert await call.served()


@pytest.mark.parametrize("bound", ["request_timeout", "body_timeout"])
async def test_a_request_that_takes_too_long_over_http1_is_answered_with_408(dsn: str, bound: str) -> None:
    async with run_server(make_settings(dsn, **{bound: 0.5})) as running, calling(running.url) as call:
        call.writer.write((HEAD % (100_000, "")).encode())
        if bound == "request_timeout":
            said = await call.dribbles(b"x")
        else:
            said = await call.closed()
        assert said.startswith(b"HTTP/1.1 408")
        assert b'"status":408' in said


async def test_a_request_that_takes_too_long_over_http2_is_answered_with_408_and_its_neighbours_live_on(
    dsn: str,
) -> None:
    async with run_server(make_settings(dsn, request_timeout=0.5)) as running, h2client(running.url) as client:
        stream = await client.stream()
        slow = await client.get("/v1/jobs", "POST", {"content-type": "application/json"}, ended=False)
        async with asyncio.timeout(40):
            while not slow.ended:
                await client.send(DataFrame(slow.id, b"x"))
                with suppress(TimeoutError):
                    await client.until(lambda: slow.ended, 0.05)
        assert slow.status == 408
        assert b'"status":408' in slow.body
        assert (await (await client.get("/healthz")).response()).status == 200
        assert not stream.over
