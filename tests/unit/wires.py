"""A wire for tests, and subscribers on it."""

import asyncio

from feed.fanout.hub import Hub
from feed.fanout.subscriber import Subscriber
from feed.model.filter import EVERYTHING, Filter
from feed.wire.chunk import Chunk
from feed.wire.wire import Wire


class FakeWire(Wire):
    """A wire that holds at most `room` bytes until the test takes them."""

    def __init__(self, room: int = 10**9) -> None:
        super().__init__()
        self.room = room
        self.held: list[Chunk] = []

    def write(self, chunk: Chunk) -> bool:
        if chunk.size > self.room:
            return False
        self.room -= chunk.size
        self.held.append(chunk)
        return True

    async def send(self, chunk: Chunk) -> None:
        self.held.append(chunk)

    @property
    def stalled(self) -> bool:
        return False

    def cut(self) -> None:
        self.close()

    @property
    def body(self) -> bytes:
        """What it holds."""
        return b"".join(chunk.body for chunk in self.held)

    def take(self) -> bytes:
        """Take what it holds, which makes room for as much."""
        taken = self.body
        self.room += len(taken)
        self.held.clear()
        return taken


class BrokenWire(FakeWire):
    """A wire that raises on every write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, chunk: Chunk) -> bool:
        self.writes += 1
        raise RuntimeError("a fault in the wire")


class Member(Subscriber):
    """A subscriber and its wire."""

    __slots__ = ()
    wire: FakeWire

    def __init__(self, wire: FakeWire) -> None:
        super().__init__(asyncio.Event(), wire)

    def take(self) -> bytes:
        """Take what its wire holds."""
        return self.wire.take()


def joined(hub: Hub, wanted: Filter = EVERYTHING, wire: FakeWire | None = None) -> Member:
    """A live subscriber, on a wire that takes everything unless another one is given."""
    member = Member(wire or FakeWire())
    member.position = hub.head
    hub.join(wanted, member)
    return member
