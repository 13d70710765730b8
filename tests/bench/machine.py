"""The machine a page was made on: its cores and who gets them, its files, and what to write beside the figures."""

import os
import platform
import re
import resource
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import asyncpg

ROOT = Path(__file__).parents[2]
LIBRARIES = (
    "hypercorn", "h2", "h11", "uvloop", "fastapi", "starlette", "sse-starlette", "uvicorn", "httptools", "asyncpg",
    "orjson", "flask", "gunicorn", "psycopg",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cores:
    """The server under test has `server` to itself; Postgres, writers and readers share `load`."""

    server: tuple[int, ...]
    load: tuple[int, ...]

    @property
    def apart(self) -> bool:
        return set(self.server).isdisjoint(self.load)


def cores() -> Cores:
    """The first core is the server's, all others the load's; a machine with one core has no choice."""
    own = sorted(os.sched_getaffinity(0))
    return Cores((own[0],), tuple(own[1:]) or (own[0],))


def pin(pid: int, to: tuple[int, ...]) -> None:
    """Keep a process, with the threads and children it has, on some cores; what it starts later inherits that."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), to)
        for child in (task / "children").read_text().split():
            pin(int(child), to)


def raise_files() -> int:
    """Let this process and its children open as many files as they may; returns how many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if os.geteuid() == 0:
        hard = max(hard, 65_536)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def described() -> dict[str, object]:
    """Commit, date, processor, kernel, Python and libraries."""
    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            libraries[name] = "not installed"
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "nginx": _nginx(),
        "libraries": libraries,
    }


async def postgres_version(dsn: str) -> str:
    """The version of a server."""
    connection = await asyncpg.connect(dsn)
    try:
        return str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    found = git("rev-parse", "--short", "HEAD")
    return (found or "unknown") + ("+" if found and git("status", "--porcelain", "feed") else "")


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def _nginx() -> str:
    if shutil.which("nginx") is None and not Path("/usr/sbin/nginx").exists():
        return "not installed"
    done = subprocess.run(
        [shutil.which("nginx") or "/usr/sbin/nginx", "-v"], capture_output=True, text=True, check=False
    )
    nginx = done.stderr.strip().rpartition("/")[2]
    package = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"], capture_output=True, text=True, check=False
    )
    return f"{nginx}, nchan {package.stdout or 'unknown'}"
