"""What the services hold in memory meanwhile: the most of any process, and how one that is left alone develops."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from tests.torture.services import ServiceProcess

_INTERVAL = 0.5
"""Seconds between looks."""


class Memory:
    """Looks at resident bytes: `most` is the largest of any process, `spared` those of the service that is left alone."""

    def __init__(self, services: Sequence[ServiceProcess], spared: ServiceProcess) -> None:
        self.most = 0
        self.spared: list[int] = []
        self._services = services
        self._spared = spared

    async def run(self) -> None:
        """Look for ever."""
        while True:
            for service in self._services:
                sizes = [resident(pid) for pid in service.pids]
                self.most = max([self.most, *sizes])
                if service is self._spared and sizes:
                    self.spared.append(sizes[0])
            await asyncio.sleep(_INTERVAL)

    def quarter(self, number: int) -> float:
        """The mean of the spared service over a quarter of the time (1 to 4), in bytes."""
        size = max(1, len(self.spared) // 4)
        part = self.spared[(number - 1) * size : number * size] or [0]
        return sum(part) / len(part)


def resident(pid: int) -> int:
    """Resident bytes of a process; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
