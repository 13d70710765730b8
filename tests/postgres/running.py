"""What runs for ever, run for as long as a test looks at it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from tests.postgres.events import Connection
from tests.waiting import until


class Runs(Protocol):
    """A sequencer, a tailer or retention."""

    async def run(self) -> None:
        """For ever."""


@asynccontextmanager
async def running(*parts: Runs) -> AsyncIterator[None]:
    """Run the parts as tasks; on leaving they are cancelled, and none of them may have ended by itself."""
    tasks = [asyncio.create_task(part.run(), name=type(part).__name__) for part in parts]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def backends(connection: Connection, name: str) -> list[int]:
    """The process ids of the sessions that call themselves `name`, in this database."""
    rows = await connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()", name
    )
    return [row["pid"] for row in rows]


async def terminate(connection: Connection, name: str) -> None:
    """End those sessions, as an administrator would, and wait until they are gone."""
    pids = await backends(connection, name)
    assert pids
    await connection.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) pid", pids)

    async def gone() -> bool:
        return not set(pids) & set(await backends(connection, name))

    await until(gone)
