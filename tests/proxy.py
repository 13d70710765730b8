"""A TCP proxy that can freeze: what is connected stays connected, and hears nothing."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """Passes bytes between its port and `target`. `freeze` holds back the connections open now; new ones pass."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._gates: set[asyncio.Event] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def serve(self, sock: socket.socket) -> asyncio.Server:
        """Listen on `sock`."""
        self.port = sock.getsockname()[1]
        return await asyncio.start_server(self._connected, sock=sock)

    def freeze(self) -> None:
        """Hold back what is connected, in both directions."""
        for gate in self._gates:
            gate.clear()

    def thaw(self) -> None:
        """Let everything flow again."""
        for gate in self._gates:
            gate.set()

    async def close(self) -> None:
        """Drop every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        gate = asyncio.Event()
        gate.set()
        self._gates.add(gate)
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection(*self._target)
            pumps = [
                asyncio.create_task(self._pump(reader, there, gate)),
                asyncio.create_task(self._pump(back, writer, gate)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._gates.discard(gate)
            self._tasks.discard(task)
            for end in (writer, there):
                if end is not None:
                    end.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event) -> None:
        while data := await source.read(65536):
            await gate.wait()
            sink.write(data)
            await sink.drain()


@asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    """A proxy in front of a port of this machine."""
    proxy = Proxy(("127.0.0.1", port))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        server = await proxy.serve(sock)
        try:
            yield proxy
        finally:
            server.close()
            await proxy.close()
