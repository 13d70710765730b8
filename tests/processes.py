"""Services and curls as processes of their own: started, signalled, waited for, and never left behind."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.conftest import QUICK
from tests.reader import Frame, parse
from tests.waiting import until

ROOT = Path(__file__).parents[1]

Certificate = tuple[Path, Path]


class ServiceProcess:
    """A running service; `url` answers."""

    def __init__(self, process: Process, url: str) -> None:
        self.process = process
        self.url = url
        self.said = b""  # on stderr
        self.printed_before = b""  # on stdout, before where it is
        self.printed = b""  # on stdout, after where it is
        self._silent = asyncio.Event()

    @property
    def workers(self) -> list[int]:
        """The process ids of the workers, eldest first: Hypercorn's spawned ones, or forks of our own master."""
        found = []
        ours = Path(f"/proc/{self.process.pid}/cmdline").read_bytes()
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):
                theirs = Path(f"/proc/{child}/cmdline").read_bytes()
                if theirs == ours or b"spawn_main" in theirs:
                    found.append(int(child))
        return found

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What its logs say of one event, in order."""
        entries = [json.loads(line) for line in self.said.splitlines() if line.startswith(b"{")]
        return [entry for entry in entries if entry["event"] == event]

    @property
    def started(self) -> int:
        """How many of Hypercorn's processes have begun to serve."""
        return len(re.findall(rb"^\[.*Running on ", self.said, re.MULTILINE))

    def signal(self, number: signal.Signals, target: str = "master") -> None:
        """Send a signal to the `master`, to one `worker`, or to the whole `group`."""
        if target == "group":
            os.killpg(self.process.pid, number)
        else:
            os.kill(self.process.pid if target == "master" else self.workers[0], number)

    async def ended(self, seconds: float = 30) -> int:
        """The exit code."""
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    async def gone(self, seconds: float = 30) -> None:
        """Wait until none of its processes is left, whoever has inherited it: nobody can write to stderr any more."""
        async with asyncio.timeout(seconds):
            await self._silent.wait()

    async def address(self) -> str:
        """Read what it prints up to where it is."""
        assert self.process.stdout
        while line := await self.process.stdout.readline():
            if found := re.match(rb"    (https?://\S+)/$", line):
                return found[1].decode()
            self.printed_before += line
        raise AssertionError("the service ended before it said where it is")

    async def follow(self) -> None:
        """Read what it says, to the end."""
        assert self.process.stderr
        while line := await self.process.stderr.readline():
            self.said += line
        self._silent.set()

    async def follow_output(self) -> None:
        """Read what it prints, to the end."""
        assert self.process.stdout
        while line := await self.process.stdout.readline():
            self.printed += line


def environment_of(dsn: str | None, settings: dict[str, object]) -> dict[str, str]:
    """The environment of a service; without a DSN it has a Postgres of its own."""
    given = {**QUICK, **settings}
    environment = os.environ | {f"FEED_{name.upper()}": str(value) for name, value in given.items()}
    return environment | {"PYTHONUNBUFFERED": "1"} | ({} if dsn is None else {"DATABASE_URL": dsn})


async def refused(dsn: str | None, *flags: str, **settings: object) -> tuple[int | None, str]:
    """Run a `feed serve` that ends by itself: its exit code, and all that it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "feed", "serve", *flags,
        cwd=ROOT, env=environment_of(dsn, settings), stdout=PIPE, stderr=PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            printed, said = await process.communicate()
        return process.returncode, (printed + said).decode()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@asynccontextmanager
async def serving(
    dsn: str | None,
    *,
    workers: int | None = None,
    certificate: Certificate | None = None,
    flags: tuple[str, ...] = (),
    **settings: object,
) -> AsyncIterator[ServiceProcess]:
    """`feed serve`; with `workers`, plain `hypercorn feed.app:app -w <workers>` on a port that was free."""
    tls = [] if certificate is None else ["--certfile", str(certificate[0]), "--keyfile", str(certificate[1])]
    with socket.socket() as reserved:
        if workers is None:
            command = ["-m", "feed", "serve", "--port", "0", *tls, *flags]
            url = ""
        else:
            # Bound and not listening, it keeps the port from others, but not from a server that reuses addresses.
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{reserved.getsockname()[1]}"
            url = f"{'https' if tls else 'http'}://{address}"
            command = ["-m", "hypercorn", "feed.app:app", "-w", str(workers), "--bind", address, *tls, *flags]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=ROOT, env=environment_of(dsn, settings), stdout=PIPE, stderr=PIPE,
            start_new_session=True,
        )  # fmt: skip
        service = ServiceProcess(process, url)
        reading = [asyncio.create_task(service.follow())]
        try:
            async with asyncio.timeout(30):
                if workers is None:
                    service.url = await service.address()
                else:
                    await until(lambda: service.started >= max(1, workers), 30)
            reading.append(asyncio.create_task(service.follow_output()))
            yield service
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers too, where the master has left any
            await asyncio.gather(*reading)
            await process.communicate()
            sys.stderr.write(service.said.decode(errors="replace"))


class Curl:
    """`curl -N` on a stream."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.last_id: str | None = None

    async def frame(self, seconds: float = 20) -> Frame | None:
        """The next frame; None at the end of the output."""
        assert self._process.stdout
        async with asyncio.timeout(seconds):
            try:
                block = await self._process.stdout.readuntil(b"\n\n")
            except asyncio.IncompleteReadError as error:
                assert not error.partial, error.partial
                return None
        found = parse(block[:-2])
        self.last_id = found.id or self.last_id
        return found

    async def until(self, event: str) -> list[Frame]:
        """Frames up to and including the next of this name."""
        seen: list[Frame] = []
        while not seen or seen[-1].event != event:
            found = await self.frame()
            assert found is not None, f"curl ended with {await self._process.wait()} before {event}"
            seen.append(found)
        return seen

    async def rest(self) -> tuple[list[Frame], int]:
        """The frames until the end, and curl's exit code."""
        seen = []
        while (found := await self.frame()) is not None:
            seen.append(found)
        return seen, await self._process.wait()


@asynccontextmanager
async def curling(url: str, *flags: str) -> AsyncIterator[Curl]:
    """Follow a URL with `curl -N`."""
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-N", "-k", "--noproxy", "*", *flags, url, stdout=PIPE, limit=1024 * 1024
    )
    try:
        yield Curl(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
