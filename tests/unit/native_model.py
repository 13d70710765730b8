"""What the native writer must do, checked against what clients receive.

`python -m tests.unit.native_model FILE SEED ROUNDS`: FILE is the extension, linked with native_faults.c. Each round writes
one chunk to connections and streams whose sockets take a random part of it, fail, are closed, or whose number was given to
somebody else. Whatever the writer says it has not written is written here, as Python's transports would. In the end each
client has every byte that it should have, in order, once.
"""

import ctypes
import errno
import gc
import importlib.util
import random
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ERRORS = (errno.EAGAIN, errno.EPIPE, errno.ECONNRESET, errno.ENOBUFS, errno.EBADF)
PLENTY = 2**31 - 1
FRAME = 16_384
"""Bytes of payload that every HTTP/2 client takes in one frame."""


def load(path: str | Path) -> Any:
    """The extension in a file."""
    spec = importlib.util.spec_from_file_location("_batch", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Faults:
    """What the next system calls do."""

    def __init__(self, path: str | Path) -> None:
        self._library = ctypes.CDLL(str(path))

    def plan(self, numbers: list[int], refuse: int = 0, most: int = 0) -> None:
        """Let each message take so many bytes or fail with an errno (negative); see native_faults.c."""
        self._library.set_plan((ctypes.c_long * len(numbers))(*numbers), len(numbers), refuse, most)


@dataclass
class Client:
    """A connection with both of its ends, and the responses on it."""

    batch: Any
    streams: tuple[int, ...] = (0,)
    expected: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.socket = self.batch.Socket(self.near.fileno())
        self.socket.window = PLENTY
        self.members = {}
        for stream in self.streams:
            member = self.batch.Member(self.socket, stream)
            member.window = PLENTY
            self.members[member] = (self, stream)

    def put(self, data: bytes) -> None:
        """Write as the transport would."""
        while data:
            try:
                data = data[self.near.send(data) :]
            except BlockingIOError:
                self.drain()

    def drain(self) -> None:
        """Read what is there."""
        try:
            while more := self.far.recv(1 << 20):
                self.received += more
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close both ends; the native socket is told first."""
        self.socket.fd = -1
        self.near.close()
        self.far.close()


def framed(stream: int, body: bytes) -> bytes:
    """A chunk as it is on the wire."""
    if not stream:
        return b"%x\r\n%b\r\n" % (len(body), body)
    return len(body).to_bytes(3, "big") + b"\0\0" + stream.to_bytes(4, "big") + body


def write(writer: Any, clients: list[Client], body: bytes) -> int:
    """Write a chunk to all; do what Python does with those that come back. Returns how many those are."""
    members = {member: owner for client in clients for member, owner in client.members.items()}
    before = {member: member.window for member in members}
    windows = [client.socket.window for client in clients]
    left = writer.write(members, framed(0, body), body)
    back = {}
    for (client, stream), sent in left:
        assert (id(client), stream) not in back, "somebody came back twice"
        back[id(client), stream] = sent
    for client, window in zip(clients, windows, strict=True):
        taken = 0
        for member, (_, stream) in client.members.items():
            size = len(body) if stream and back.get((id(client), stream)) != 0 else 0
            assert member.window == before[member] - size, "a window is off"
            assert not size or (size <= before[member] and size <= window and size <= FRAME), (
                "more than the client takes"
            )
            taken += size
        assert client.socket.window == window - taken, "the window of a connection is off"
    for client in clients:
        if client.socket.fd < 0:
            assert all(back[id(client), stream] == 0 for stream in client.streams)
            continue
        client.drain()
        if any(back.get((id(client), stream)) for stream in client.streams):
            assert not client.socket.open, "nothing may follow half a frame"
    for (client, stream), sent in left:
        if client.socket.fd >= 0:
            client.put(framed(stream, body)[sent:])
            client.socket.open = True
    for client in clients:
        if client.socket.fd >= 0:
            client.drain()
            check(client, body)
    return len(left)


def check(client: Client, body: bytes) -> None:
    """Each stream has its frame, whole, once."""
    size = len(framed(client.streams[0], body))
    got = bytes(client.received)
    assert len(got) == size * len(client.streams), (len(got), size, client.streams)
    frames = sorted(got[begin : begin + size] for begin in range(0, len(got), size))
    assert frames == sorted(framed(stream, body) for stream in client.streams)
    client.received.clear()


def rounds(batch: Any, faults: Faults, seed: int, count: int) -> None:
    """Random rounds."""
    dice = random.Random(seed)
    writers = [batch.Writer(False), *([batch.Writer(True)] if rings(batch) else [])]
    for _ in range(count):
        clients = [
            Client(batch, (0,) if dice.random() < 0.5 else tuple(range(1, 2 * dice.randint(1, 12), 2)))
            for _ in range(dice.choice([0, 1, 2, 7, 25]))
        ]
        for number in range(4):
            body = dice.randbytes(dice.choice([0, 1, 2, 9, 540, 16_384, 16_385]))
            plan = [
                dice.choice([PLENTY, PLENTY, 0, 1, 8, 9, 10, dice.randint(0, 20_000), -dice.choice(_ERRORS)])
                for _ in clients
            ]
            faults.plan(plan, refuse=0 if number < 3 else dice.randint(0, 1), most=dice.choice([0, 1, 3]))
            for client in clients:
                for member in client.members:
                    member.window = dice.choice([PLENTY, PLENTY, len(body), len(body) - 1, -5])
                client.socket.window = dice.choice([PLENTY, PLENTY, len(body), 3 * len(body), -5])
                client.socket.open = dice.random() < 0.9
            if clients and dice.random() < 0.3:
                dice.choice(clients).close()
                clients.append(Client(batch))  # which the system gives the number that is free now
            writer = dice.choice(writers)
            write(writer, clients, body)
            if len(writers) > 1 and not writers[1].by_ring:
                writers[1] = batch.Writer(True)
        for client in clients:
            client.close()
    faults.plan([])
    gc.collect()


def every_byte(batch: Any, faults: Faults) -> None:
    """Writes that end after each byte of what one connection is sent."""
    for writer in [batch.Writer(False), *([batch.Writer(True)] if rings(batch) else [])]:
        for streams in [(0,), (1,), (1, 3, 5)]:
            clients = [Client(batch, streams), Client(batch)]
            whole = sum(len(framed(stream, b"hello")) for stream in streams)
            for taken in range(whole + 1):
                faults.plan([PLENTY, taken])  # the last one that was queued is written first
                came_back = write(writer, clients, b"hello")
                assert (came_back > 0) == (taken < whole)
            for client in clients:
                client.close()
    faults.plan([])


class Garbage:
    """A cycle that, when it is collected, ends every response."""

    def __init__(self, members: dict[Any, Any]) -> None:
        self.members = members
        self.me = self

    def __del__(self) -> None:
        self.members.clear()


def collected(batch: Any) -> None:
    """Responses that end while the result is made, since garbage is collected then."""
    writer = batch.Writer(False)
    for _ in range(200):
        clients = [Client(batch, (1, 3, 5)) for _ in range(5)]
        members = {member: owner for client in clients for member, owner in client.members.items()}
        for client in clients:
            client.members.clear()
            client.socket.open = False
        Garbage(members)
        gc.set_threshold(1)
        left = writer.write(members, b"1\r\nx\r\n", b"x")
        gc.set_threshold(700)
        assert [sent for _, sent in left] == [0] * 15
        for client in clients:
            client.close()


def rings(batch: Any) -> bool:
    """Whether io_uring is allowed here."""
    try:
        batch.Writer(True)
    except OSError:
        return False
    return True


def many(batch: Any) -> None:
    """10,000 members on one connection and on hundreds, and nobody at all."""
    for writer in [batch.Writer(False), *([batch.Writer(True)] if rings(batch) else [])]:
        assert writer.write({}, b"1\r\nx\r\n", b"x") == []
        clients = [Client(batch, tuple(range(1, 41, 2))) for _ in range(450)] + [Client(batch) for _ in range(490)]
        clients.append(Client(batch, tuple(range(1, 1025, 2))))
        assert write(writer, clients, b"x" * 50) == 0
        crowded = Client(batch, tuple(range(1, 20_001, 2)))
        assert write(writer, [crowded], b"x" * 50) == 10_000
        for client in [*clients, crowded]:
            client.close()
        assert write(writer, [*clients, crowded], b"x") == 450 * 20 + 490 + 512 + 10_000


if __name__ == "__main__":
    extension = load(sys.argv[1])
    faulty = Faults(sys.argv[1])
    every_byte(extension, faulty)
    collected(extension)
    rounds(extension, faulty, int(sys.argv[2]), int(sys.argv[3]))
    many(extension)
    print("every byte arrived once")
