"""Whether the readers could be the bottleneck: how fast they count what a source sends that does nothing else."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from feed.bench.readers import reading
from feed.bench.spec import Spec
from tests.bench.machine import pin
from tests.bench.publisher import payload
from tests.bench.section import Bench, Section

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def source(fd: int, subscribers: int, events: int, joined: int) -> None:
    """Answer so many subscribers, and once a byte comes on stdin send each of them prebuilt chunks, round after round."""
    frame = b"id: 1.1\nevent: posted\ndata: %b\n\n" % payload(1, "self-1-0").encode()
    body = frame * joined
    piece = b"%x\r\n%b\r\n" % (len(body), body)
    live = b": hi\n\n"
    listener = socket.socket(fileno=fd)
    clients = []
    for _ in range(subscribers):
        client = listener.accept()[0]
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.recv(4096)
        client.sendall(_HEAD + b"%x\r\n%b\r\n" % (len(live), live))
        clients.append(client)
    sys.stdin.read(1)
    for _ in range(events // joined):
        for client in clients:
            client.sendall(piece)
    sys.stdin.read()


@asynccontextmanager
async def _sending(
    bench: Bench, subscribers: int, events: int, joined: int
) -> AsyncIterator[tuple[int, asyncio.StreamWriter]]:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        call = (
            f"from tests.bench.selfcheck import source; source({listener.fileno()}, {subscribers}, {events}, {joined})"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", call, pass_fds=(listener.fileno(),), stdin=asyncio.subprocess.PIPE
        )
        pin(process.pid, bench.cores.server)
        try:
            assert process.stdin
            yield listener.getsockname()[1], process.stdin
        finally:
            process.kill()
            await process.wait()


async def section(bench: Bench) -> Section:
    """An event a write, as in a fan-out, and many, as in a burst."""
    subscribers = 100 if bench.quick else 500
    page = Section(
        "selfcheck",
        f"The readers themselves: {subscribers} subscribers of a source that sends prebuilt bytes",
        {
            "who": "", "per_second": "events/s", "per_cpu_second": "events per CPU second of the readers",
            "reader_busy": "readers busy", "missing": "missing", "twice": "twice",
        },
    )  # fmt: skip
    for joined, rounds in ((1, 200 if bench.quick else 1_000), (100, 20 if bench.quick else 100)):
        bench.say(f"self-check: {joined} a write")
        events = joined * rounds
        async with _sending(bench, subscribers, events, joined) as (port, stdin):
            spec = Spec(
                "127.0.0.1", port, "/", "http/1.1", subscribers=subscribers, marker='"external_id":"self-', live=": hi",
                cores=bench.cores.load,
            )  # fmt: skip
            async with reading(spec) as readers:
                await readers.open()
                first = await readers.report(0)
                began = time.monotonic()
                stdin.write(b"1")
                await readers.reach(events, 60)
                seen = await readers.report(events)
        took, used = seen.at - began, max(seen.cpu - first.cpu, 0.01)
        page.add(
            who=f"{joined} event{'s' * (joined > 1)} a write", per_second=seen.deliveries / took,
            per_cpu_second=seen.deliveries / used, reader_busy=used / took, missing=seen.missing, twice=seen.twice,
        )  # fmt: skip
    return page
