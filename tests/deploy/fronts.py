"""The shipped proxies in front of a service: real ones, on free ports, in a folder of their own."""

import asyncio
import os
import shutil
import socket
import ssl
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from feed.serving.certificate import self_signed
from tests.processes import ROOT
from tests.waiting import until

NAMES = ("nginx", "caddy", "haproxy")
HOST = "feed.example"

# Debian puts servers where only root's path leads.
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def program(name: str) -> str:
    """Where a program is; skips the test where it is not installed."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        pytest.skip(f"{name} is not installed: make tools")
    return found


@dataclass(frozen=True, slots=True)
class Front:
    """A running proxy that goes by its name, on two ports of this machine: TLS and `plain`."""

    name: str
    port: int
    plain: int
    certificate: Path
    process: Process

    @property
    def url(self) -> str:
        """Where clients find it, if they are told that its name is this machine (`resolve`)."""
        return f"https://{HOST}:{self.port}"

    @property
    def resolve(self) -> tuple[str, ...]:
        """curl's flags to find it."""
        return ("--resolve", f"{HOST}:{self.port}:127.0.0.1")

    def client(self, *, http2: bool = True, address: str = "127.0.0.1") -> httpx.AsyncClient:
        """A client that takes paths, at an address of this machine; one that can speak HTTP/2 negotiates it."""
        trusted = ssl.create_default_context(cafile=self.certificate)
        return httpx.AsyncClient(
            transport=_ByName(http1=not http2, http2=http2, verify=trusted, local_address=address), base_url=f"https://127.0.0.1:{self.port}",
            headers={"Host": f"{HOST}:{self.port}"}, timeout=30,
        )  # fmt: skip


class _ByName(httpx.AsyncHTTPTransport):
    """Asks for the proxy by its name in TLS too."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["sni_hostname"] = HOST
        return await super().handle_async_request(request)


class _Setup:
    """What a proxy is started with: its configuration, the shipped one with the documented placeholders replaced."""

    def __init__(self, folder: Path, upstream: str, plain: int, secure: int) -> None:
        self.folder = folder
        self.certificate, self.key = self_signed(folder, HOST)
        self.upstream = upstream
        self.plain = plain
        self.secure = secure

    def text(self, file: str, *pairs: tuple[str, str]) -> str:
        """The shipped file with each of the pairs replaced; all of them must occur in it."""
        text = (ROOT / "deploy" / file).read_text()
        pairs = (*pairs, ("127.0.0.1:8000", self.upstream))
        for old, new in pairs:
            assert old in text, f"{old!r} is no longer in deploy/{file}"
            text = text.replace(old, new)
        return text

    def nginx(self, *more: tuple[str, str]) -> list[str]:
        text = self.text(
            "nginx.conf", *more,
            ("    listen [::]:80;\n", ""), ("    listen [::]:443 ssl http2 so_keepalive=60s:10s:3;\n", ""),
            ("listen 80;", f"listen 127.0.0.1:{self.plain};"), ("listen 443 ", f"listen 127.0.0.1:{self.secure} "),
            ("/etc/feed/tls/cert.pem", str(self.certificate)), ("/etc/feed/tls/key.pem", str(self.key)),
            ("/run/nginx.pid", f"{self.folder}/nginx.pid"), ("/var/log/nginx", str(self.folder)),
            ("/var/lib/nginx", str(self.folder)), ("user www-data;", "user root;" if os.geteuid() == 0 else ""),
            ("worker_rlimit_nofile 65536;", ""), ("worker_connections 32768;", "worker_connections 1024;"),
        )  # fmt: skip
        file = self.folder / "nginx.conf"
        file.write_text(text)
        return ["-e", "stderr", "-p", str(self.folder), "-c", str(file), "-g", "daemon off;"]

    def caddy(self, *more: tuple[str, str]) -> list[str]:
        text = self.text(
            "Caddyfile", *more,
            ("http_port 80", f"admin off\n\tdefault_bind 127.0.0.1\n\thttp_port {self.plain}"),
            ("https_port 443", f"https_port {self.secure}"),
            ("# tls /etc/feed/tls/cert.pem /etc/feed/tls/key.pem", f"tls {self.certificate} {self.key}"),
        )  # fmt: skip
        file = self.folder / "Caddyfile"
        file.write_text(text)
        return ["run", "--config", str(file), "--adapter", "caddyfile"]

    def haproxy(self, *more: tuple[str, str]) -> list[str]:
        both = self.folder / "both.pem"
        both.touch(mode=0o600)
        both.write_bytes(self.certificate.read_bytes() + self.key.read_bytes())
        text = self.text(
            "haproxy.cfg", *more,
            ("/etc/feed/tls/both.pem", str(both)), ("    chroot /var/lib/haproxy\n", ""),
            ("    user haproxy\n    group haproxy\n", ""),
            ("bind :80\n", f"bind 127.0.0.1:{self.plain}\n"), ("bind :443 ", f"bind 127.0.0.1:{self.secure} "),
        )  # fmt: skip
        file = self.folder / "haproxy.cfg"
        file.write_text(text)
        return ["-db", "-f", str(file)]


@asynccontextmanager
async def fronting(
    name: str, upstream: str, folder: Path, *changes: tuple[str, str], files: int | None = None
) -> AsyncIterator[Front]:
    """A proxy in front of `upstream` (a URL), with the shipped configuration and `changes` to it (old text, new text).

    It may open at most so many `files`.
    """
    found = program(name)
    with ExitStack() as stack:
        plain, secure = (stack.enter_context(_reserved()) for _ in range(2))
        setup = _Setup(folder, urlsplit(upstream).netloc, plain.getsockname()[1], secure.getsockname()[1])
        arguments: list[str] = getattr(setup, name)(*changes)
        home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        bounded = [] if files is None else ["sh", "-c", 'ulimit -n "$0" && exec "$@"', str(files)]
        process = await asyncio.create_subprocess_exec(
            *bounded,
            found,
            *arguments,
            env=os.environ | home,
            cwd=folder,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
        )
        said = asyncio.create_task(_all_of(process))
        try:
            await until(lambda: process.returncode is not None or _accepts(setup.secure), 30)
            assert process.returncode is None, (await said).decode(errors="replace")
            yield Front(name, setup.secure, setup.plain, setup.certificate, process)
        finally:
            with suppress(ProcessLookupError):
                process.terminate()  # nginx's workers go with their master, and only so
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
            printed = await said
            (folder / "printed.log").write_bytes(printed)
            sys.stderr.write(printed.decode(errors="replace"))


async def _all_of(process: Process) -> bytes:
    assert process.stdout
    return await process.stdout.read()


def _reserved() -> socket.socket:
    """A port: bound and not listening, it is kept from others, but not from a server that reuses addresses."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
