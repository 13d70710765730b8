"""How much memory streams take, and ways to open many of them."""

from pathlib import Path
from typing import Any

import httpx

from feed.serving.certificate import self_signed
from feed.settings.settings import Settings
from tests.conftest import make_settings

MIB = 1024 * 1024


LITTLE_SHARED = {"ring_bytes": MIB, "history_cache": MIB, "joined_bytes": MIB, "history_page": 5}
"""So little memory for what all subscribers share that what one costs can be seen."""


class Memory:
    """What a process has held at the most since this was made, over what it held then."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): the peak begins anew
        self._before = self._kilobytes("VmRSS")

    @property
    def growth(self) -> int:
        """In bytes."""
        return (self._kilobytes("VmHWM") - self._before) * 1024

    def _kilobytes(self, name: str) -> int:
        line = next(line for line in self._status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1])


async def open_streams(url: str) -> int:
    """What /readyz says."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as client:
        answer: int = (await client.get("/readyz")).json()["streams"]
        return answer


def settings_of(dsn: str, tmp_path: Path, *, tls: bool, **more: Any) -> Settings:
    """Settings with or without a certificate."""
    if tls:
        more["certfile"], more["keyfile"] = self_signed(tmp_path, "127.0.0.1")
    return make_settings(dsn, **more)
