"""The disturbances: everything that may happen to a service or its database, at random, each at least once."""

import asyncio
import random
import signal
import time
from collections import Counter
from typing import Any

import asyncpg

from tests.cluster import Cluster
from tests.torture.services import ServiceProcess
from tests.torture.writer import LOST, connect

_LEADER = """
SELECT a.usename FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'advisory' AND l.granted AND a.application_name = 'feed sequencer'
"""
_BACKENDS = """
SELECT pid, application_name FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = current_database()
"""


class Chaos:
    """One disturbance after the other; `happened` counts them, `story` says when."""

    def __init__(self, cluster: Cluster, dsn: str, services: dict[str, ServiceProcess], seed: int) -> None:
        self.happened: Counter[str] = Counter()
        self.now = ""
        """The disturbance that goes on."""
        self.story: list[str] = []
        self._cluster = cluster
        self._dsn = dsn
        self._services = services  # by the role that each connects as
        self._rng = random.Random(seed)
        self._began = 0.0
        self._starting: asyncio.Task[None] | None = None
        self._kinds = {
            "leader killed": self._kill_leader,
            "database restarted": self._restart,
            "backends terminated": self._terminate,
            "follower killed": self._kill_follower,
            "database crashed": self._crash,
            "service drained": self._drain,
            "postmaster killed": self._kill_postmaster,
            "leader stopped": self._stop_leader,
            "service replaced": self._replace,
            "worker killed": self._kill_worker,
            "master killed": self._kill_master,
        }

    @property
    def kinds(self) -> int:
        """How many kinds of disturbances there are."""
        return len(self._kinds)

    async def run(self, stop: asyncio.Event) -> None:
        """Disturb until `stop`, but all of it once in any case."""
        rng = self._rng
        due = rng.sample(list(self._kinds), len(self._kinds))
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as self._tasks:
            while due or not stop.is_set():
                kind = due.pop() if due else rng.choice(list(self._kinds))
                self.story.append(f"{time.monotonic() - self._began:7.2f} s  {kind}")
                self.now = kind
                await self._kinds[kind]()
                self.happened[kind] += 1
                await asyncio.sleep(rng.choice((0.1, 0.3, 1)))

    async def _end(self, service: ServiceProcess, number: signal.Signals) -> int:
        """End a service and have it started again, while the next disturbance may already be under way."""
        code = await service.end(number)
        self._starting = self._tasks.create_task(service.start(), name=f"start of {service.name}")
        return code

    async def _both_up(self) -> None:
        if self._starting is not None:
            await self._starting

    async def _leader(self) -> ServiceProcess:
        """The service that sequences now."""
        async with asyncio.timeout(30):
            while True:
                rows = await self._ask(_LEADER)
                if rows:
                    return self._services[rows[0]["usename"]]
                await asyncio.sleep(0.05)

    async def _ask(self, sql: str) -> list[Any]:
        """Ask the database, however long it takes to come back."""
        async with asyncio.timeout(30):
            while True:
                try:
                    connection = await connect(self._dsn)
                    try:
                        return list(await connection.fetch(sql))
                    finally:
                        connection.terminate()
                except (*LOST, asyncpg.CannotConnectNowError):
                    await asyncio.sleep(0.05)

    async def _kill_leader(self) -> None:
        await self._both_up()
        await self._end(await self._leader(), signal.SIGKILL)

    async def _kill_follower(self) -> None:
        await self._both_up()
        leader = await self._leader()
        await self._end(next(one for one in self._services.values() if one is not leader), signal.SIGKILL)

    async def _stop_leader(self) -> None:
        """Longer than the lease: the other must take over, and the one that wakes must not do harm."""
        await self._both_up()
        leader = await self._leader()
        leader.send(signal.SIGSTOP)
        try:
            async with asyncio.timeout(20):
                while await self._leader() is leader:
                    await asyncio.sleep(0.1)
        finally:
            leader.send(signal.SIGCONT)

    async def _drain(self) -> None:
        await self._both_up()
        service = self._rng.choice(list(self._services.values()))
        code = await self._end(service, self._rng.choice((signal.SIGTERM, signal.SIGINT)))
        assert code == 0, f"service {service.name} drained and ended with {code}"

    async def _replace(self) -> None:
        """A new one starts, the old one drains; clients move."""
        await self._both_up()
        service = self._rng.choice(list(self._services.values()))
        code = await service.replace()
        assert code == 0, f"service {service.name} was replaced, drained and ended with {code}"

    async def _several(self) -> ServiceProcess:
        """A service with more than one process, all of them there."""
        await self._both_up()
        async with asyncio.timeout(30):
            while True:
                for service in self._services.values():
                    if len(service.pids) > 2:
                        return service
                await asyncio.sleep(0.05)

    async def _kill_worker(self) -> None:
        assert (await self._several()).kill_worker(self._rng)

    async def _kill_master(self) -> None:
        service = await self._several()
        assert await service.orphan(), f"service {service.name} has workers that outlive their master"
        self._starting = self._tasks.create_task(service.start(), name=f"start of {service.name}")

    async def _terminate(self) -> None:
        for _ in range(self._rng.randint(1, 4)):
            backends = await self._ask(_BACKENDS)
            # By name first: the few of the services would hardly be met among the writers.
            name = self._rng.choice(sorted({row["application_name"] for row in backends}) or [""])
            some = [row["pid"] for row in backends if row["application_name"] == name]
            if some:
                await self._ask(f"SELECT pg_terminate_backend({self._rng.choice(some)})")
            await asyncio.sleep(self._rng.uniform(0, 0.3))

    async def _restart(self) -> None:
        await asyncio.to_thread(self._cluster.stop, "fast")
        await self._start()

    async def _crash(self) -> None:
        await asyncio.to_thread(self._cluster.stop, "immediate")
        await self._start()

    async def _kill_postmaster(self) -> None:
        self._cluster.kill()
        await self._start()

    async def _start(self) -> None:
        """Start the database; after a kill its orphans hold on to the shared memory for a moment."""
        await asyncio.sleep(self._rng.choice((0, 0.5)))
        async with asyncio.timeout(60):
            while True:
                try:
                    await asyncio.to_thread(self._cluster.start)
                    return
                except RuntimeError:
                    await asyncio.sleep(0.3)
