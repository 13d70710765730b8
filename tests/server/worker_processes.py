"""Worker processes, seen from outside."""

from contextlib import AsyncExitStack

from tests.processes import Curl, ServiceProcess, curling
from tests.server.draining import STREAM, connections, protocols
from tests.waiting import until


async def spread(service: ServiceProcess, stack: AsyncExitStack) -> dict[int, list[Curl]]:
    """Live curls, by worker, until each worker has one over every protocol."""
    found: dict[tuple[int, str], list[Curl]] = {}
    workers = service.workers
    flags = protocols(service.url)
    while len(found) < len(workers) * len(flags):
        for flag in flags:
            before = {pid: connections(pid) for pid in workers}
            curl = await stack.enter_async_context(curling(service.url + STREAM, flag))
            await curl.until("synced")
            taken = [pid for pid in workers if connections(pid) > before[pid]]
            if len(taken) == 1:  # else somebody's connection to the database has come in between
                found.setdefault((taken[0], flag), []).append(curl)
    return {pid: [curl for (owner, _), held in found.items() if owner == pid for curl in held] for pid in workers}


async def successor(service: ServiceProcess, workers: list[int]) -> int:
    """The process id of the worker that has come after `workers`."""

    def found() -> int | None:
        return next((pid for pid in service.workers if pid not in workers), None)

    return await until(found)
