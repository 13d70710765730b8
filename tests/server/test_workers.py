"""Several processes on one address: who gets what, who dies and what comes after, and how they all end."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest

from feed.client import FeedClient
from feed.serving.certificate import self_signed
from feed.settings.settings import Settings
from tests.cluster import Cluster
from tests.conftest import run_server
from tests.processes import Certificate, curling, refused, serving
from tests.reader import reading
from tests.server.draining import STREAM, connections, farewell
from tests.server.postings import INSERT, MANY
from tests.server.worker_processes import spread, successor
from tests.waiting import until

TERM, INT, KILL, STOP = signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGSTOP


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for this machine."""
    return self_signed(tmp_path_factory.mktemp("tls"), "127.0.0.1")


async def test_one_worker_is_the_process_itself(dsn: str) -> None:
    async with serving(dsn, flags=("--workers", "1"), log_level="info") as service:
        assert service.workers == []
        service.signal(TERM)
        assert await service.ended() == 0
    assert service.logged("worker ready") == []


async def test_every_worker_streams_every_event_and_the_greeting_comes_once(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with serving(dsn, flags=("--workers", "3")) as service, AsyncExitStack() as stack:
        assert len(service.workers) == 3
        curls = [curl for held in (await spread(service, stack)).values() for curl in held]
        await database.execute(MANY, 50)
        for curl in curls:
            frames = [(await curl.until("posted"))[-1] for _ in range(50)]
            assert [frame.data["title"] for frame in frames] == [f"Job {n}" for n in range(1, 51)]
        service.signal(TERM)
        await asyncio.gather(*map(farewell, curls))
        assert await service.ended() == 0
        await service.gone()
    assert b"Watch it here" in service.printed
    assert b"Open the page" not in service.printed  # which came first, and once
    assert b"Traceback" not in service.said


async def test_a_thousand_connections_are_spread_evenly(dsn: str) -> None:
    async with serving(dsn, flags=("--workers", "4"), log_level="info") as service, AsyncExitStack() as stack:
        await until(lambda: len(service.logged("following the log")) == 4)
        before = {pid: connections(pid) for pid in service.workers}
        where = urlsplit(service.url)
        loop = asyncio.get_running_loop()
        for _ in range(1000):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            await loop.sock_connect(client, (where.hostname, where.port))
            await loop.sock_sendall(client, f"GET {STREAM} HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())

        def shares() -> list[int] | None:
            held = [connections(pid) - before[pid] for pid in before]
            return held if sum(held) >= 1000 else None

        held = await until(shares)
        assert max(held) / min(held) <= 1.5, held
        service.signal(TERM)
        assert await service.ended() == 0


MODES = [
    # TLS, signal, to whom
    (False, TERM, "master"),
    (False, INT, "group"),
    (True, INT, "master"),
    (True, TERM, "group"),
]


@pytest.mark.parametrize(("tls", "number", "target"), MODES)
async def test_every_stream_is_told_goodbye_and_the_master_ends_with_0(
    dsn: str, settings: Settings, database: "asyncpg.Connection[Any]", certificate: Certificate,
    tls: bool, number: signal.Signals, target: str,
) -> None:  # fmt: skip
    async with (
        serving(
            dsn, certificate=certificate if tls else None, flags=("--workers", "2"), drain_rate=8, log_level="info"
        ) as service,
        AsyncExitStack() as stack,
    ):
        curls = [curl for held in (await spread(service, stack)).values() for curl in held]
        await database.execute(INSERT, "seen")
        await asyncio.gather(*(curl.until("posted") for curl in curls))
        service.signal(number, target)
        await asyncio.gather(*map(farewell, curls))
        assert await service.ended() == 0
        await service.gone()
        assert b"Traceback" not in service.said
        assert [entry["code"] for entry in service.logged("worker ended")] == [0, 0]
    await database.execute(MANY, 3)
    async with (
        run_server(settings) as restarted,
        reading(restarted.url, f"?last_event_id={curls[0].last_id}") as reader,
    ):
        assert [frame.data["title"] for frame in await reader.jobs(3)] == ["Job 1", "Job 2", "Job 3"]


async def test_signals_that_go_on_coming_do_not_break_the_drain(dsn: str) -> None:
    async with (
        serving(dsn, flags=("--workers", "2"), drain_rate=8, log_level="info") as service,
        AsyncExitStack() as stack,
    ):
        curls = [curl for held in (await spread(service, stack)).values() for curl in held]

        async def hail() -> None:
            while True:
                for number in (TERM, INT):
                    with contextlib.suppress(ProcessLookupError):
                        service.signal(number, "group")
                await asyncio.sleep(0)  # they find the very last moment of a worker, too

        storm = asyncio.create_task(hail())
        await asyncio.gather(*map(farewell, curls))
        assert await service.ended() == 0
        storm.cancel()
        await service.gone()
        assert b"Traceback" not in service.said
        assert [entry["code"] for entry in service.logged("worker ended")] == [0, 0]


async def test_a_signal_that_comes_before_the_workers_answer_ends_them_all(dsn: str) -> None:
    async with serving(dsn, flags=("--workers", "2")) as service:
        old = service.workers
        os.kill(old[0], KILL)
        while not set(service.workers) - set(old):
            pass  # without a pause: it must have only just begun
        service.signal(TERM, "group")
        assert await service.ended() == 0
        await service.gone()


async def test_a_worker_that_is_told_to_go_drains_and_another_takes_its_place(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with serving(dsn, flags=("--workers", "2"), log_level="info") as service, AsyncExitStack() as stack:
        workers = service.workers
        curls = await spread(service, stack)
        service.signal(TERM, "worker")
        await asyncio.gather(*map(farewell, curls.pop(workers[0])))
        await until(lambda: len(service.logged("worker ready")) == 3)
        assert [(entry["pid"], entry["code"]) for entry in service.logged("worker ended")] == [(workers[0], 0)]
        rest = curls[workers[1]] + [curl for held in (await spread(service, stack)).values() for curl in held]
        await database.execute(INSERT, "still here")
        for curl in rest:
            assert (await curl.until("posted"))[-1].data["title"] == "still here"
        service.signal(TERM)
        await asyncio.gather(*map(farewell, rest))
        assert await service.ended() == 0
        await service.gone()
    assert b"Traceback" not in service.said
    assert b"Open the page" not in service.printed  # the greeting does not come again


async def positions(client: FeedClient, count: int, live: asyncio.Event) -> list[int]:
    """The positions of the first `count` events that a client is given, however often it has to come back."""
    seen: list[int] = []
    async with aclosing(client.follow(start="earliest", control=True)) as events:
        async for event in events:
            if event.kind == "synced":
                live.set()
            if event.is_posting:
                seen.append(int(event.id.split(".")[1]))
                if len(seen) == count:
                    break
    return seen


async def test_clients_of_a_killed_worker_come_back_and_miss_nothing(
    dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    async with (
        serving(dsn, flags=("--workers", "2"), log_level="info") as service,
        AsyncExitStack() as stack,
        asyncio.TaskGroup() as tasks,
    ):
        clients = [
            await stack.enter_async_context(FeedClient(service.url, http2=number % 2 == 0)) for number in range(12)
        ]
        live = [asyncio.Event() for _ in clients]
        reads = [tasks.create_task(positions(client, 300, one)) for client, one in zip(clients, live, strict=True)]
        await asyncio.gather(*(one.wait() for one in live))
        for killed in (0, 0, 1):
            for _ in range(50):
                await database.execute(INSERT, "before")
            workers = service.workers
            os.kill(workers[killed], KILL)
            for _ in range(50):
                await database.execute(INSERT, "after")
            pid = await successor(service, workers)
            await until(lambda: pid in [entry["pid"] for entry in service.logged("worker ready")])
        for read in reads:
            assert await read == list(range(1, 301))
        assert [entry["code"] for entry in service.logged("worker ended")] == [-KILL] * 3
        service.signal(TERM)
        assert await service.ended() == 0
        assert b"Traceback" not in service.said


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def test_what_waits_in_the_queue_of_a_killed_worker_is_served_by_its_successor(dsn: str) -> None:
    async with serving(dsn, flags=("--workers", "2")) as service, AsyncExitStack() as stack:
        workers = service.workers
        for pid in workers:
            os.kill(pid, STOP)
        await until(lambda: all(map(stopped, workers)))
        where = urlsplit(service.url)
        waiting = []
        for _ in range(20):  # connected by the kernel, accepted by nobody
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            stack.callback(writer.close)
            writer.write(f"GET /healthz HTTP/1.1\r\nHost: {where.netloc}\r\n\r\n".encode())
            waiting.append(reader)
        for pid in workers:
            os.kill(pid, KILL)
        async with asyncio.timeout(30):
            for reader in waiting:
                assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        service.signal(TERM)
        assert await service.ended() == 0


async def test_workers_whose_master_is_killed_drain_and_leave_whatever_the_others_do(dsn: str) -> None:
    async with serving(dsn, flags=("--workers", "2"), log_level="info") as service, AsyncExitStack() as stack:
        killed, elder = service.workers
        os.kill(killed, KILL)
        younger = await successor(service, [killed, elder])  # forked while the elder's link was there
        await until(lambda: len(service.logged("worker ready")) == 3)
        curls = await spread(service, stack)
        os.kill(younger, STOP)
        await until(lambda: stopped(younger))
        service.signal(KILL)
        await asyncio.gather(*map(farewell, curls[elder]))
        os.kill(younger, signal.SIGCONT)
        await asyncio.gather(*map(farewell, curls[younger]))
        await service.gone()
        assert len(service.logged("the master is gone")) == 2
        assert b"Traceback" not in service.said


async def test_a_worker_that_dies_again_and_again_is_started_ever_more_slowly(dsn: str) -> None:
    async with serving(dsn, flags=("--workers", "2")) as service:
        stays, dies = service.workers
        for _ in range(5):
            os.kill(dies, KILL)
            dies = await successor(service, [stays, dies])
        waits = [entry["seconds_to_next"] for entry in service.logged("worker ended")]
        bounds = [0.1, 0.2, 0.4, 0.8, 1.6]
        assert [bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True)] == [True] * 5
        assert stays in service.workers
        service.signal(TERM)
        assert await service.ended() == 0


async def test_a_worker_that_does_not_end_is_killed_and_the_exit_code_says_so(dsn: str) -> None:
    async with serving(dsn, flags=("--workers", "2"), drain_window=0.1, drain_deadline=0.1) as service:
        hangs = service.workers[0]
        os.kill(hangs, STOP)
        await until(lambda: stopped(hangs))
        service.signal(TERM)
        assert await service.ended() == 1
        await service.gone()
    assert [entry["pid"] for entry in service.logged("worker killed")] == [hangs]
    assert service.said.splitlines()[-1] == b"feed: a worker did not end as it should; the log says which."


async def test_a_database_that_refuses_is_one_clear_error_as_without_workers(cluster: Cluster) -> None:
    alone, several = [await refused(cluster.dsn("nowhere"), "--port", "0", "--workers", count) for count in ("1", "3")]
    assert alone == several
    assert several[0] == 1
    assert several[1].startswith('feed: database "nowhere" does not exist')
    assert several[1].count("\n") == 1


@pytest.mark.parametrize("shared", [False, True])
async def test_a_port_of_somebody_else_is_one_clear_error_even_where_it_could_be_shared(dsn: str, shared: bool) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        alone, several = [await refused(dsn, "--port", port, "--workers", count) for count in ("1", "3")]
    assert alone == several
    assert several[0] == 2
    assert several[1].startswith(f"feed: cannot listen on 127.0.0.1 port {port}: Address already in use.")
    assert several[1].count("\n") == 1


async def test_workers_that_cannot_start_are_not_started_for_ever(dsn: str, tmp_path: Path) -> None:
    nothing = str(tmp_path / "nothing.pem")
    code, said = await refused(dsn, "--port", "0", "--workers", "2", "--certfile", nothing, "--keyfile", nothing)
    assert code == 1
    assert "FileNotFoundError" in said
    assert said.splitlines()[-1] == "feed: a worker did not start; the log says why."


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for an embedded Postgres, which is not left running whatever happens."""
    # Not in pytest's, which only its owner may enter: as root we run Postgres as another user.
    made = Path(tempfile.mkdtemp(prefix="feed-data-"))
    made.chmod(0o755)
    yield made
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((made / "postgres" / "postmaster.pid").read_text().split()[0]), KILL)
    shutil.rmtree(made, ignore_errors=True)


async def test_the_embedded_postgres_is_the_masters_and_one_worker_plays_the_demo(folder: Path) -> None:
    async with serving(
        None, flags=("--workers", "2", "--demo", "--self-signed"), data_dir=folder, log_level="info"
    ) as service:
        assert service.url.startswith("https://")
        # What a fork takes along must be at rest.
        assert len(list(Path(f"/proc/{service.process.pid}/task").iterdir())) == 1
        async with curling(f"{service.url}{STREAM}?from=earliest", "--http2") as curl:
            titles: dict[str, str] = {}
            while len(titles) < 4:
                frame = await curl.frame()
                assert frame is not None
                if frame.event in ("posted", "updated"):  # two of them would write the same ids, or two series
                    title = frame.data["title"] + frame.data["company"]
                    assert titles.setdefault(frame.data["external_id"], title) == title
            (series,) = {name.partition("-")[0] for name in titles}
        player = next(entry["pid"] for entry in service.logged("worker ready") if entry["worker"] == 0)
        os.kill(player, KILL)
        await until(lambda: len(service.logged("worker ready")) == 3)
        async with curling(service.url + STREAM, "--http2") as curl:
            # What the killed worker had committed may be sequenced only now; then another series begins.
            while (await curl.until("posted"))[-1].data["external_id"].startswith(series):
                pass
            service.signal(TERM, "group")
            _, code = await curl.rest()
            assert code == 0
        assert await service.ended() == 0
        await service.gone()
        assert b"Traceback" not in service.said
    assert not (folder / "postgres" / "postmaster.pid").exists()


async def test_health_is_answered_by_every_worker_while_others_die(dsn: str) -> None:
    async with serving(dsn, flags=("--workers", "2")) as service:
        workers = service.workers
        os.kill(workers[0], KILL)
        for _ in range(20):  # by hash some of these wait for the successor
            async with httpx.AsyncClient(base_url=service.url, trust_env=False) as client:
                assert (await client.get("/healthz", timeout=30)).status_code == 200
        service.signal(TERM)
        assert await service.ended() == 0
