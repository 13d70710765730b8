"""What cannot carry a feed is refused in words that say what to change: standbys, poolers, wrong doors."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import asyncpg
import pytest

from feed.database.check import check
from feed.database.migrate import migrate
from feed.errors import DatabaseRefused, DatabaseUnavailable
from tests.cluster import Cluster
from tests.conftest import make_settings
from tests.postgres.events import Connection, add, advanced, dense, opened, titles
from tests.waiting import until

PGBOUNCER = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
STARTUP = "search_path,application_name,jit,tcp_keepalives_idle,tcp_keepalives_interval,tcp_keepalives_count"


async def test_a_primary_is_accepted(dsn: str) -> None:
    await check(make_settings(dsn).database, dsn)


async def test_an_empty_database_is_accepted(blank: str) -> None:
    await check(make_settings(blank).database, blank)


async def test_a_standby_is_refused_until_it_is_promoted_and_then_begins_an_epoch() -> None:
    primary, standby = Cluster(), Cluster()
    try:
        await asyncio.to_thread(lambda: primary.create().start())
        settings = make_settings(primary.dsn())
        await migrate(settings, primary.dsn())
        async with opened(primary.dsn()) as there:
            await add(there, "sequenced")
            await advanced(there)
            await add(there, "waiting")
            epoch = await there.fetchval("SELECT epoch FROM state")
        copy = ("pg_basebackup", "-d", primary.dsn(), "-D", str(standby.data), "-R", "--checkpoint=fast")
        await asyncio.to_thread(primary.run, *copy)
        await asyncio.to_thread(standby.start)
        with pytest.raises(DatabaseRefused, match=r"leads to a standby .*the primary's address"):
            await check(settings.database, standby.dsn())
        # The primary is lost, and goes on alone for a moment: what it does then is not the standby's history.
        await asyncio.to_thread(primary.stop, "immediate")
        await asyncio.to_thread(standby.run, "pg_ctl", "-D", str(standby.data), "-w", "promote")
        await check(settings.database, standby.dsn())
        async with opened(standby.dsn()) as here:
            await add(here, "after")
            events = await advanced(here)
            assert titles(events) == ["waiting", "after"]
            assert dense(events, 2)
            state = await here.fetchrow("SELECT s.epoch, e.start_position FROM state s JOIN epoch e USING (epoch)")
            assert state is not None
            assert state["epoch"] > epoch
            assert state["start_position"] == 1
    finally:
        await asyncio.to_thread(standby.remove)
        await asyncio.to_thread(primary.remove)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.transport.abort()
    return True


@asynccontextmanager
async def pooled(cluster: Cluster, dsn: str, **settings: str) -> AsyncIterator[str]:
    """A PgBouncer in front of the cluster; yields the way to `dsn` through it."""
    assert PGBOUNCER is not None
    port = free_port()
    lines = {
        "listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "", "auth_type": "any",
        "server_check_delay": 0,
    } | settings  # fmt: skip
    # Beside the cluster's data: a folder that the account it runs under may enter.
    written, log = cluster.root / f"pgbouncer-{port}.ini", cluster.root / f"pgbouncer-{port}.log"
    written.write_text(
        f"[databases]\n* = host=127.0.0.1 port={cluster.port} user=postgres\n[pgbouncer]\n"
        + "".join(f"{name} = {value}\n" for name, value in lines.items())
    )
    with log.open("w") as out:
        process = subprocess.Popen([PGBOUNCER, str(written)], user=cluster.user, stdout=out, stderr=out, cwd="/")
    try:
        await until(lambda: answers(port))
        yield dsn.replace(f":{cluster.port}/", f":{port}/")
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
        written.unlink()
        log.unlink()


needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed (apt-get install pgbouncer)")


@needs_pgbouncer
@pytest.mark.parametrize("ignored", ["", STARTUP], ids=["as it comes", "with our parameters ignored"])
async def test_a_pooler_that_shares_connections_between_transactions_is_refused(
    dsn: str, cluster: Cluster, ignored: str
) -> None:
    async with pooled(cluster, dsn, pool_mode="transaction", ignore_startup_parameters=ignored) as through:
        with pytest.raises(DatabaseRefused, match="goes through a pooler that shares connections between transactions"):
            await check(make_settings(through).database, through)


@needs_pgbouncer
async def test_it_is_refused_the_second_time_too(dsn: str, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    # The statements that the first process prepared live on in the pooler's connections; a new one names its own alike.
    async with pooled(cluster, dsn, pool_mode="transaction", ignore_startup_parameters=STARTUP) as through:
        for _ in range(2):
            monkeypatch.setattr("asyncpg.connection._uid", 0)
            with pytest.raises(DatabaseRefused, match="shares connections between transactions"):
                await check(make_settings(through).database, through)


@needs_pgbouncer
async def test_a_pool_in_session_mode_is_accepted_where_it_brings_our_schema(
    database: Connection, dsn: str, cluster: Cluster
) -> None:
    async with pooled(cluster, dsn, pool_mode="session", ignore_startup_parameters=STARTUP) as through:
        with pytest.raises(DatabaseRefused, match="ALTER ROLE <role> SET search_path = feed, pg_temp;"):
            await check(make_settings(through).database, through)
    await database.execute(f"ALTER DATABASE {dsn.rpartition('/')[2]} SET search_path = feed, pg_temp")
    async with pooled(cluster, dsn, pool_mode="session", ignore_startup_parameters=STARTUP) as through:
        await check(make_settings(through).database, through)


async def test_a_database_that_does_not_exist_is_named(cluster: Cluster) -> None:
    dsn = cluster.dsn("nowhere")
    with pytest.raises(
        DatabaseRefused, match=r'"nowhere" does not exist. Create it, or name another one in DATABASE_URL'
    ):
        await check(make_settings(dsn).database, dsn)


async def test_a_role_that_does_not_exist_is_named(cluster: Cluster) -> None:
    dsn = cluster.dsn(user="nobody")
    with pytest.raises(DatabaseRefused, match=r'"nobody" does not exist. Check the user and password in DATABASE_URL'):
        await check(make_settings(dsn).database, dsn)


@pytest.mark.parametrize("password", ["", ":wrong"])
async def test_a_wrong_password_is_called_that(cluster: Cluster, role: str, password: str) -> None:
    rules = cluster.data / "pg_hba.conf"
    before = rules.read_text()
    async with opened(cluster.dsn()) as admin:
        await admin.execute(f"ALTER ROLE {role} PASSWORD 'right'")
        try:
            rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{before}")
            await admin.execute("SELECT pg_reload_conf()")

            async def guarded() -> bool:
                try:
                    connection = await asyncpg.connect(cluster.dsn(user=role), password="never")
                except asyncpg.InvalidPasswordError:
                    return True
                connection.terminate()
                return False

            await until(guarded)
            dsn = cluster.dsn(user=f"{role}{password}")
            with pytest.raises(DatabaseRefused, match="Check the user and password in DATABASE_URL"):
                await check(make_settings(dsn).database, dsn)
            dsn = cluster.dsn(user=f"{role}:right")
            await check(make_settings(dsn).database, dsn)
        finally:
            rules.write_text(before)
            await admin.execute("SELECT pg_reload_conf()")


async def test_nobody_there_is_unavailable_and_not_refused() -> None:
    dsn = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"
    with pytest.raises(DatabaseUnavailable, match="the database does not answer"):
        await check(make_settings(dsn).database, dsn)


async def test_a_silent_peer_is_unavailable_after_the_time_allowed() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        dsn = f"postgresql://postgres@127.0.0.1:{silent.getsockname()[1]}/postgres"
        with pytest.raises(DatabaseUnavailable, match="does not answer: TimeoutError"):
            await check(make_settings(dsn, connect_timeout=0.2).database, dsn)
