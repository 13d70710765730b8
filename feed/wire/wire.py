"""The wire: what a stream sees of the connection under it. Frames are pushed while it takes them, and pulled when not."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from feed.wire.chunk import Chunk

if TYPE_CHECKING:
    from feed.wire.native._batch import Member


class Disconnected(Exception):
    """The client has left, or was cut off."""


class Wire(ABC):
    """The body of one response. Nothing else writes to it."""

    __slots__ = ("closed",)

    direct: ClassVar[bool] = True
    """Whether what is written goes straight to a socket."""

    def __init__(self) -> None:
        self.closed = False

    @abstractmethod
    def write(self, chunk: Chunk) -> bool:
        """Push: take the whole chunk at once and return True, or take nothing and return False if there is no room now."""

    @abstractmethod
    async def send(self, chunk: Chunk) -> None:
        """Pull: wait until the client has taken enough of what came before, then take the chunk.

        Raises Disconnected.
        """

    def member(self) -> "Member | None":
        """Return what the native writer writes to in the place of `write`, or None where it cannot."""
        return None

    def write_rest(self, chunk: Chunk, sent: int) -> None:
        """Push what is left of a chunk of which the native writer has written `sent` bytes, framing included."""
        raise NotImplementedError

    @property
    @abstractmethod
    def stalled(self) -> bool:
        """Whether the response ended because its client took nothing for `send_timeout`."""

    @abstractmethod
    def cut(self) -> None:
        """End this response in the middle, at once, and with it a connection whose client takes nothing at all."""

    def close(self) -> None:
        """Write nothing any more: the client is gone."""
        self.closed = True
