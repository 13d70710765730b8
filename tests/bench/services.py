"""What is measured, as processes of their own on cores of their own: Postgres, the feed, and its peers."""

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.machine import ROOT, Cores, pin, raise_files
from tests.cluster import Cluster

_SETTLE = 60
"""Seconds in which a service must start or stop."""
_MODULES = (Path("/usr/share/nginx/modules"), Path("/usr/lib/nginx/modules"))


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answers; `url_h2` is where it speaks HTTP/2, which nginx does on another port."""

    url: str
    pid: int
    url_h2: str
    log: Path | None = None
    """What it has logged, where that is kept."""
    plain: str = ""
    """Where events are posted to a server whose subscribers have TLS, if that is somewhere else."""
    headers: tuple[tuple[str, str], ...] = ()
    """What a request for a stream needs besides."""


@asynccontextmanager
async def postgres(cores: Cores) -> AsyncIterator[Cluster]:
    """A Postgres on the cores of the load. It does not wait for its disk: the feed is what is measured."""
    cluster = Cluster(max_wal_size="4GB", checkpoint_timeout="30min", autovacuum_naptime="1min", shared_buffers="256MB")
    try:
        await asyncio.to_thread(lambda: cluster.create().start())
        pin(cluster.pid, cores.load)
        yield cluster
    finally:
        await asyncio.to_thread(cluster.remove)


@asynccontextmanager
async def feed(dsn: str, cores: Cores, *, workers: int = 1, **settings: object) -> AsyncIterator[Server]:
    """`feed serve` with its defaults and `settings`, on the server's core (on all cores, with several workers)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FEED_", "DATABASE_URL"))}
    environment |= {f"FEED_{name.upper()}": str(value) for name, value in settings.items()}
    environment |= {"PYTHONUNBUFFERED": "1"}
    if workers > 1:
        environment["FEED_WORKERS"] = str(workers)
    with tempfile.TemporaryDirectory(prefix="feed-bench-") as folder:
        out, log = Path(folder) / "out", Path(folder) / "log"
        with out.open("wb") as to, log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "feed", "serve", "--port", "0", "--database-url", dsn,
                stdout=to, stderr=errors, env=environment, cwd=ROOT,
            )  # fmt: skip
        if workers == 1:
            pin(process.pid, cores.server)
        try:
            async with asyncio.timeout(_SETTLE):
                while (found := re.search(rb"https?://[\d.:]+", out.read_bytes())) is None:
                    if process.returncode is not None:
                        raise RuntimeError(f"the service ended at its start: {log.read_text()[-2000:]}")
                    await asyncio.sleep(0.02)
            url = found[0].decode()
            yield Server(url, process.pid, url, log)
        finally:
            await _end(process)


@asynccontextmanager
async def python_app(server: str, app: str, cores: Cores) -> AsyncIterator[Server]:
    """An ASGI app under `hypercorn` or `uvicorn`, one worker, on uvloop; under `python`, a module that serves by itself."""
    # By port, not by an inherited socket: uvicorn takes one of those for a Unix socket, and TCP_NODELAY is not set.
    (port,) = _free_ports(1)
    if server == "python":
        command = [str(port)]
    elif server == "hypercorn":
        command = [
            "--bind",
            f"127.0.0.1:{port}",
            "--backlog",
            "4096",
            "--worker-class",
            "uvloop",
            "--log-level",
            "error",
        ]
    else:
        command = [
            "--port",
            str(port),
            "--backlog",
            "4096",
            "--loop",
            "uvloop",
            "--log-level",
            "error",
            "--no-access-log",
        ]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *([app] if server == "python" else [server, app]),
        *command,
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
    )
    pin(process.pid, cores.server)
    url = f"http://127.0.0.1:{port}"
    try:
        await _answering(process, url, "/openapi.json")
        yield Server(url, process.pid, url)
    finally:
        await _end(process)


@asynccontextmanager
async def gunicorn(app: str, dsn: str, threads: int, cores: Cores) -> AsyncIterator[Server]:
    """A WSGI app under gunicorn: one process of up to so many threads, on the server's core."""
    (port,) = _free_ports(1)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gunicorn", app, "--bind", f"127.0.0.1:{port}", "--worker-class", "gthread",
        "--threads", str(threads), "--worker-connections", str(threads), "--backlog", "4096", "--timeout", "0",
        "--log-level", "critical", env=os.environ | {"DATABASE_URL": dsn}, cwd=ROOT,
    )  # fmt: skip
    pin(process.pid, cores.server)
    url = f"http://127.0.0.1:{port}"
    try:
        await _answering(process, url, "/")
        yield Server(url, process.pid, url)
    finally:
        await _end(process)


def nchan_module() -> Path | None:
    """Where nchan is; None where it, or nginx, is not installed."""
    found = next(
        (folder / "ngx_nchan_module.so" for folder in _MODULES if (folder / "ngx_nchan_module.so").exists()), None
    )
    return found if _nginx() else None


def _nginx() -> str | None:
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")


@asynccontextmanager
async def nchan(cores: Cores, certificate: tuple[Path, Path] | None = None) -> AsyncIterator[Server]:
    """nginx with nchan, one worker; with a certificate (and its key) its subscribers have TLS."""
    with tempfile.TemporaryDirectory(prefix="feed-nchan-") as folder:
        files = raise_files()
        (first, second), secure = _free_ports(2), _free_ports(2)
        tls = "" if certificate is None else (
            f"listen 127.0.0.1:{secure[0]} ssl backlog=4096; listen 127.0.0.1:{secure[1]} ssl http2 backlog=4096; "
            f"ssl_certificate {certificate[0]}; ssl_certificate_key {certificate[1]};"
        )  # fmt: skip
        conf = Path(folder) / "nginx.conf"
        conf.write_text(
            (Path(__file__).parent / "peers" / "nchan.conf").read_text().format(
                module=nchan_module(), folder=folder, port=first, port_h2=second, files=files,
                connections=min(files - 64, 32_768), tls=tls, user="user root;" if os.geteuid() == 0 else "",
            )
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(_nginx() or "nginx", "-c", str(conf), "-p", folder)
        pin(process.pid, cores.server)
        try:
            url = f"http://127.0.0.1:{first}"
            await _answering(process, url, "/")
            if certificate is None:
                yield Server(url, process.pid, f"http://127.0.0.1:{second}")
            else:
                over_tls = [f"https://127.0.0.1:{port}" for port in secure]
                yield Server(over_tls[0], process.pid, over_tls[1], plain=url)
        finally:
            await _end(process)


def _free_ports(count: int) -> list[int]:
    with socket.socket() as one, socket.socket() as two:
        found = []
        for reserved in (one, two)[:count]:
            reserved.bind(("127.0.0.1", 0))
            found.append(int(reserved.getsockname()[1]))
        return found


async def _answering(process: Process, url: str, path: str) -> None:
    """Return once any HTTP answer comes."""
    host, _, port = url.removeprefix("http://").partition(":")
    async with asyncio.timeout(_SETTLE):
        while True:
            if process.returncode is not None:
                raise RuntimeError(f"the server at {url} ended with {process.returncode} at its start")
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            line = await reader.readline()
            writer.close()
            if line.startswith(b"HTTP/"):
                return


async def _end(process: Process) -> None:
    """TERM, and KILL where that is not enough: streams are open, and some servers wait for them."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(3):
            await process.wait()
    except TimeoutError:
        for child in _children(process.pid):
            os.kill(child, signal.SIGKILL)
        if process.returncode is None:
            process.kill()
        await process.wait()


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
