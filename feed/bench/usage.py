"""What a process uses, with all its children: processor and memory, from /proc."""

import os
from pathlib import Path

from feed.errors import ConfigurationError

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def family(pid: int) -> list[int]:
    """Return the ids of a process and of all its descendants; raises ConfigurationError where it is not there."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            if one == pid:
                raise ConfigurationError(f"there is no process {pid} to look at on this machine") from None
            continue
        found.append(one)
    return found


def cpu_seconds(pid: int) -> float:
    """Return the user and system time used so far, in seconds (proc(5), fields 14 and 15 of stat)."""
    total = 0
    for one in family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / _TICK


def resident_bytes(pid: int) -> int:
    """Return the resident memory, in bytes; memory that processes share counts once for each of them."""
    total = 0
    for one in family(pid):
        try:
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
    return total
