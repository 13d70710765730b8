"""Cursors that are of no use, and those that only seem so."""

from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import pytest

from feed.database.retention import prune
from feed.settings.settings import Settings
from tests.conftest import Running, make_settings, run_server
from tests.postgres.running import terminate
from tests.proxy import Proxy, proxied
from tests.reader import reading
from tests.server.postings import INSERT, fill, replayed
from tests.waiting import until


async def freeze_tailer(running: Running, proxy: Proxy, database: "asyncpg.Connection[Any]") -> None:
    """Freeze what a process follows the log by; its pool's connections end, and those made from here on pass."""
    await terminate(database, "feed pool")
    connections = running.service.store._pool
    await until(lambda: connections.get_size() == 0)
    proxy.freeze()


async def check_reset(running: Running, cursor: str, reason: str, *, header: bool = False, http2: bool = False) -> None:
    """The stream at `cursor` says so with 200, names a snapshot that works, and goes on live from the head."""
    head, epoch = running.service.hub.head, running.service.hub.epoch
    query = "?company=Acme&company=M%C3%BCller+%26+Co&q=job" + ("" if header else f"&last_event_id={quote(cursor)}")
    headers = {"Last-Event-ID": cursor} if header else {}
    async with reading(running.url, query, headers=headers, http2=http2) as reader:
        frames = await reader.until("synced")
        reset = next(frame for frame in frames if frame.event == "reset")
        assert reset.data["reason"] == reason
        assert reset.id == f"{epoch}.{head}"
        assert not [frame for frame in frames if frame.event in ("posted", "updated", "closed")]
        async with httpx.AsyncClient(trust_env=False) as client:
            assert reset.data["snapshot"] == "/v1/jobs?company=Acme&company=M%C3%BCller+%26+Co&q=job"
            answer = await client.get(running.url + reset.data["snapshot"])
        assert answer.status_code == 200
        assert len(answer.json()["jobs"]) == head
        assert reader.last_id == f"{epoch}.{head}"


NONE_OF_OURS = (
    "nonsense", "1.2.3", "-5", "1.", ".5", "1.-2", "0x10", "1e3", "１.２", "9" * 20, "1." + "9" * 20, "9" * 16 + ".1",
    "9223372036854775808", "9" * 5000, "null", "\x7f",
)  # fmt: skip


@pytest.mark.parametrize("http2", [False, True])
async def test_an_id_that_is_none_of_ours_resets(
    server: Running, database: "asyncpg.Connection[Any]", http2: bool
) -> None:
    await fill(server, database, 2)
    for cursor in NONE_OF_OURS:
        await check_reset(server, cursor, "malformed", http2=http2)
        if cursor.isascii() and cursor.isprintable():
            await check_reset(server, cursor, "malformed", header=True, http2=http2)


async def test_an_id_ahead_of_the_log_resets(server: Running, database: "asyncpg.Connection[Any]") -> None:
    epoch = await fill(server, database, 2)
    for cursor in (f"{epoch}.3", "3", f"{epoch}.9223372036854775807", "9223372036854775807"):
        await check_reset(server, cursor, "ahead")
    async with reading(server.url, f"?last_event_id={epoch}.2") as reader:
        assert await replayed(reader) == []


async def test_an_id_of_an_epoch_that_never_was_resets(server: Running, database: "asyncpg.Connection[Any]") -> None:
    epoch = await fill(server, database, 2)
    for cursor in ("0.1", "7.1", f"{epoch + 1}.1", "999999999999999.0"):
        await check_reset(server, cursor, "epoch", header=True)


async def test_an_id_that_was_pruned_resets(dsn: str, database: "asyncpg.Connection[Any]") -> None:
    settings = make_settings(dsn, ring_events=2, retention_events=4)
    async with run_server(settings) as running:
        epoch = await fill(running, database, 10)
        await prune(database, settings)
        for cursor in (f"{epoch}.5", "0"):
            await check_reset(running, cursor, "pruned")
        async with reading(running.url, f"?last_event_id={epoch}.6") as reader:
            assert await replayed(reader) == [7, 8, 9, 10]
        async with reading(running.url, "?from=earliest") as reader:
            assert await replayed(reader) == [7, 8, 9, 10]
        async with reading(running.url, "?since=3d") as reader:
            assert await replayed(reader) == [7, 8, 9, 10]


async def test_an_old_epochs_id_is_good_up_to_its_end(settings: Settings, database: "asyncpg.Connection[Any]") -> None:
    async with run_server(settings) as running, reading(running.url) as witness:
        await witness.until("synced")
        old = await fill(running, database, 3)
        # A restore or a promotion gives the database another identity.
        await database.execute("UPDATE state SET ident = 'another'")
        await fill(running, database, 3)
        epoch = running.service.hub.epoch
        assert epoch != old
        for position in (0, 2, 3):
            async with reading(running.url, headers={"Last-Event-ID": f"{old}.{position}"}) as reader:
                assert await replayed(reader) == list(range(position + 1, 7))
                assert reader.last_id == f"{epoch}.6"
        for position in (4, 6, 7):
            await check_reset(running, f"{old}.{position}", "epoch")
        # Whoever was connected all along noticed nothing.
        assert [frame.position for frame in await witness.jobs(6)] == [1, 2, 3, 4, 5, 6]


async def test_a_log_that_lost_its_newest_events_resets_who_has_seen_them(
    settings: Settings, database: "asyncpg.Connection[Any]"
) -> None:
    async with run_server(settings) as running:
        old = await fill(running, database, 3)
        async with reading(running.url) as live:
            await live.until("synced")
            # As after an asynchronous promotion: the log is shorter, and its next positions are other events.
            await database.execute(
                "WITH gone AS (DELETE FROM log WHERE position > 1) UPDATE state SET head = 1, ident = 'another'"
            )
            reset = (await live.until("reset"))[-1]
            assert reset.data["reason"] == "epoch"
            assert reset.position == 1
            await until(lambda: running.service.hub.epoch != old)
            await database.execute(INSERT, "other")
            assert [frame.position for frame in await live.jobs(1)] == [2]
        async with reading(running.url, headers={"Last-Event-ID": f"{old}.3"}) as reader:
            assert (await reader.until("reset"))[-1].data["reason"] == "epoch"
        async with reading(running.url, headers={"Last-Event-ID": f"{old}.1"}) as reader:
            assert await replayed(reader) == [2]


async def test_an_id_ahead_of_a_process_that_merely_lags_is_good(
    settings: Settings, dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    port = int(dsn.split(":")[-1].split("/")[0])
    async with proxied(port) as proxy, run_server(settings) as leading:
        await fill(leading, database, 2)
        slow = make_settings(dsn.replace(f":{port}/", f":{proxy.port}/"), sequencer=False, tail_timeout=60)
        async with run_server(slow) as lagging:
            assert lagging.service.hub.head == 2
            await freeze_tailer(lagging, proxy, database)
            epoch = await fill(leading, database, 3)
            async with reading(lagging.url, headers={"Last-Event-ID": f"{epoch}.5"}) as reader:
                _, pin = await reader.frame(), await reader.frame()
                assert pin and pin.id == f"{epoch}.5"
                assert lagging.service.hub.head == 2
                proxy.thaw()
                synced = await reader.frame()
                assert synced and synced.data == {"position": 5, "replayed": 0}
                await database.execute(INSERT, "next")
                assert [frame.position for frame in await reader.jobs(1)] == [6]


async def test_an_id_ahead_of_everyone_resets_on_a_lagging_process_too(
    settings: Settings, dsn: str, database: "asyncpg.Connection[Any]"
) -> None:
    port = int(dsn.split(":")[-1].split("/")[0])
    async with proxied(port) as proxy, run_server(settings) as leading:
        await fill(leading, database, 2)
        slow = make_settings(dsn.replace(f":{port}/", f":{proxy.port}/"), sequencer=False, tail_timeout=60)
        async with run_server(slow) as lagging:
            await freeze_tailer(lagging, proxy, database)
            epoch = await fill(leading, database, 3)
            async with reading(lagging.url, headers={"Last-Event-ID": f"{epoch}.6"}) as reader:
                reset = (await reader.until("reset"))[-1]
                assert reset.data["reason"] == "ahead"
                proxy.thaw()
                # The head that the reset named was this process's own: what follows it comes.
                assert [frame.position for frame in await reader.jobs(5 - reset.position)] == list(
                    range(reset.position + 1, 6)
                )
