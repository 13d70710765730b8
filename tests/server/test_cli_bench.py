"""`feed bench` as a process, against a running service: that everything is counted right, never how fast it was."""

import os
from asyncio.subprocess import PIPE
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson
import pytest

from feed.bench.fanout import spec_of
from feed.bench.readers import reading
from feed.bench.spec import Http, Spec, Task
from feed.bench.writer import new_run, sql_writer
from feed.client.errors import Unavailable
from feed.settings.settings import Settings
from tests.conftest import Running, run_server
from tests.processes import ROOT
from tests.server.scripted import Answer, Script, feed, posted, running
from tests.waiting import until

SMALL = ("--subscribers", "12", "--events", "8", "--rate", "40")
FLAGS = {"h1": ("--http1.1",), "h2": ("--http2",), "shared": ("--http2", "--streams", "5")}
HTTP = {"h1": "http/1.1", "h2": "h2c", "shared": "h2c"}


async def bench(*arguments: str) -> tuple[int | None, str, str]:
    """Run `feed bench` to its end; returns its exit code, stdout and stderr."""
    async with feed("bench", *arguments, stdin=PIPE) as process:
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()


async def test_without_its_package_it_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hpack.py").write_text("raise ImportError('not installed')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    code, out, err = await bench("latency")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "pip install 'jobfeed[bench]'" in err


@pytest.mark.parametrize("way", FLAGS)
async def test_every_posting_written_by_sql_reaches_every_subscriber(server: Running, dsn: str, way: str) -> None:
    code, out, err = await bench("latency", server.url, *SMALL, *FLAGS[way], "--database-url", dsn, "--json")
    assert code == 0, err
    found = orjson.loads(out)
    assert (found["deliveries"], found["missing"], found["twice"], found["ended"]) == (96, 0, 0, 0)
    assert (found["clock"], found["http"]) == ("commit", HTTP[way])
    assert found["first"]["p50"] <= found["all"]["p50"] <= found["last"]["p50"] <= found["all"]["max"]


async def test_postings_sent_by_post_arrive_and_are_closed_at_the_end(
    server: Running, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    code, out, err = await bench("latency", server.url, *SMALL)
    assert code == 0, err
    assert "12 subscribers over h2c, 8 events at 40/s: 96 deliveries, 0 missing, 0 twice" in out
    rows: list[Any] = await database.fetch("SELECT source, closed_at IS NULL AS open FROM job")
    assert rows
    assert {(row["source"], row["open"]) for row in rows} == {("bench", False)}


async def test_more_bytes_than_the_default_windows_of_http2_arrive(server: Running, dsn: str) -> None:
    code, out, _ = await bench(
        "latency", server.url, "--subscribers", "2", "--events", "200", "--rate", "400", "--database-url", dsn, "--json"
    )
    assert code == 0
    assert orjson.loads(out)["deliveries"] == 400


@pytest.mark.parametrize("way", FLAGS)
async def test_fanout_counts_each_posting_at_each_subscriber(server: Running, dsn: str, way: str) -> None:
    code, out, err = await bench("fanout", server.url, *SMALL, *FLAGS[way], "--database-url", dsn, "--json")
    assert code == 0, err
    found = orjson.loads(out)
    assert (found["deliveries"], found["missing"], found["twice"], found["ended"]) == (96, 0, 0, 0)
    assert (found["subscribers"], found["http"]) == (12, HTTP[way])
    assert found["deliveries_per_cpu_second"] is None
    assert found["joined"] >= 1
    assert found["event_bytes"] > 300


async def test_fanout_reads_the_processor_of_a_process_it_is_shown(server: Running) -> None:
    code, out, err = await bench("fanout", server.url, *SMALL, "--pid", str(os.getpid()))
    assert code == 0, err
    assert "per CPU second" in out
    assert "opening 12 streams" in err


async def test_fanout_refuses_a_process_that_is_not_there(server: Running, dsn: str) -> None:
    code, out, err = await bench("fanout", server.url, *SMALL, "--database-url", dsn, "--pid", "4194304")
    assert (code, out) == (2, "")
    assert "no process 4194304" in err


@pytest.mark.parametrize("way", FLAGS)
async def test_a_storm_is_replayed_to_all_without_a_gap(
    server: Running, database: "asyncpg.Connection[asyncpg.Record]", way: str
) -> None:
    await database.execute(
        "INSERT INTO job (title, company, url) SELECT 'Engineer', 'Acme', 'https://acme.example/' || n "
        "FROM generate_series(1, 300) n"
    )
    code, out, err = await bench("storm", server.url, "--subscribers", "15", "--back", "100", *FLAGS[way], "--json")
    assert code == 0, err
    found = orjson.loads(out)
    assert (found["missing"], found["ended"], found["live"]) == (0, 0, None)
    assert 15 * 90 <= found["deliveries"] <= 15 * 110


async def test_a_storm_is_watched_by_those_who_stay(server: Running, dsn: str) -> None:
    code, out, err = await bench(
        "storm", server.url, "--subscribers", "5", "--back", "3", "--bystanders", "2", "--database-url", dsn, "--json"
    )
    assert code == 0, err
    found = orjson.loads(out)
    assert (found["bystanders"], found["missing"]) == (2, 0)
    assert found["live"]["p99"] is not None


@pytest.mark.parametrize("command", ["latency", "fanout", "storm"])
async def test_a_feed_that_is_not_there_ends_it_with_exit_code_3(command: str) -> None:
    code, out, err = await bench(command, "http://127.0.0.1:9", "--subscribers", "2")
    assert (code, out) == (3, "")
    assert "127.0.0.1:9" in err.splitlines()[-1]


@pytest.mark.parametrize("command", ["latency", "fanout", "storm"])
async def test_an_address_that_is_none_ends_it_with_exit_code_2(command: str) -> None:
    code, out, err = await bench(command, "nonsense", "--subscribers", "2")
    assert (code, out) == (2, "")
    assert err.startswith("feed: 'nonsense' is not the address of a feed. ")


async def test_several_streams_on_a_connection_of_http_1_are_refused() -> None:
    code, _, err = await bench("fanout", "--streams", "2", "--http1.1")
    assert code == 2
    assert "HTTP/1.1 has one stream on each connection" in err


async def test_an_answer_other_than_200_is_told(server: Running, dsn: str) -> None:
    code, _, err = await bench("fanout", server.url + "/elsewhere", *SMALL, "--database-url", dsn)
    assert code == 3
    assert "the server answered" in err
    assert "404" in err


LIVE = b"event: synced\ndata: {}\n\n"


def sent(*numbers: int) -> bytes:
    """Frames of events of the run "r", by number."""
    return b"".join(posted(number + 1, external_id=f"r-{number}-0") for number in numbers).replace(b'": ', b'":')


@pytest.mark.parametrize("http", ["http/1.1", "h2"])
@pytest.mark.parametrize("task", ["count", "time"])
@pytest.mark.parametrize(
    ("numbers", "missing", "twice"),
    [((0, 1, 2), 0, 0), ((0, 2), 1, 0), ((0, 1, 2, 2), 0, 1)],
    ids=["all", "one missing", "one twice"],
)
async def test_readers_see_what_is_missing_and_what_came_twice(
    http: Http, task: Task, numbers: tuple[int, ...], missing: int, twice: int
) -> None:
    script = Script(Answer(LIVE + sent(*numbers), then="silence"))
    async with running(script) as url, reading(scripted(url, http, task)) as readers:
        await readers.open()
        counted = len(set(numbers)) if task == "time" else len(numbers)
        await readers.reach(counted, 5)
        seen = await readers.report(3)
    assert (seen.deliveries, seen.missing, seen.twice, seen.ended) == (counted, missing, twice, 0)


@pytest.mark.parametrize(("http", "streams"), [("http/1.1", 1), ("h2", 5)])
async def test_readers_come_back_to_a_successor_with_their_last_id(
    dsn: str, settings: Settings, http: Http, streams: int
) -> None:
    async with AsyncExitStack() as stack:
        old, new = [await stack.enter_async_context(run_server(settings)) for _ in range(2)]
        writer = await stack.enter_async_context(sql_writer(dsn, new_run(), close=False))
        spec = replace(
            spec_of(old.url, writer.run, 10, http, streams), task="return", return_port=urlsplit(new.url).port or 0
        )
        readers = await stack.enter_async_context(reading(spec, 1))
        await readers.open()
        await writer.write(0)
        await readers.reach(1, 10)
        old.stop.set()
        await old.ended
        await writer.write(1, 2)  # some of them have to be replayed, if not all

        async def back() -> bool:
            return len((await readers.report(0)).lived) == 10

        await until(back)
        await writer.write(3)
        await readers.reach(4, 10)
        seen = await readers.report(4)
    assert (seen.live, seen.deliveries, seen.missing, seen.twice, seen.ended) == (10, 40, 0, 0, 0)


@pytest.mark.parametrize("http", ["http/1.1", "h2"])
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_events_cut_in_any_place_are_counted_once(http: Http, size: int) -> None:
    body = LIVE + sent(*range(20))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": f"{(await receive())['type']}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for at in range(0, len(body), size):
            await send({"type": "http.response.body", "body": body[at : at + size], "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async with running(app) as url, reading(scripted(url, http, "count")) as readers:  # type: ignore[arg-type]
        await readers.open()
        await readers.reach(20, 10)
        seen = await readers.report(20)
    assert (seen.deliveries, seen.missing, seen.twice) == (20, 0, 0)


@pytest.mark.parametrize("http", ["http/1.1", "h2"])
async def test_a_stream_that_ends_before_it_is_live_is_told(http: Http) -> None:
    async with running(Script(Answer(sent(0)))) as url, reading(scripted(url, http, "count")) as readers:
        with pytest.raises(Unavailable, match="the server ended a stream"):
            await readers.open()


async def test_the_numbers_of_subscribers_stand_in_their_requests() -> None:
    script = Script(*[Answer(LIVE, then="silence")] * 6)
    async with running(script) as url:
        spec = scripted(url, "h2", "count", path="/{n}/{n%4}/{n/2}/{n*3}", streams=2, subscribers=6)
        async with reading(spec, processes=2) as readers:
            await readers.open()
            await readers.report(0)
    assert sorted(request.path for request in script.requests) == [f"/{n}/{n % 4}/{n // 2}/{n * 3}" for n in range(6)]


def scripted(url: str, http: Http, task: Task, **more: Any) -> Spec:
    """One subscriber of a scripted feed."""
    host, _, port = url.removeprefix("http://").partition(":")
    given = {"path": "/", "marker": '"external_id":"r-', "patience": 10.0, **more}
    return Spec(host=host, port=int(port), http=http, task=task, **given)
