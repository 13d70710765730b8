from typing import TypeVar, final

_T = TypeVar("_T")

@final
class Socket:
    """One TCP connection without TLS, whose descriptor belongs to a transport."""

    def __new__(cls, fd: int, /) -> Socket: ...
    fd: int
    """The descriptor. Set it to -1 before it is closed: nothing is written to the socket any more."""
    open: bool
    """Whether nothing waits in Python that must be written to it first."""
    window: int
    """Bytes that the client takes on the whole connection (HTTP/2); may be negative."""
    frames: int
    """DATA frames written by `Writer.write` since this was last set to 0."""

@final
class Member:
    """One response on a socket: `stream` is its HTTP/2 stream, or 0 for HTTP/1.1."""

    def __new__(cls, socket: Socket, stream: int, /) -> Member: ...
    @property
    def socket(self) -> Socket: ...
    open: bool
    """Whether the response goes on."""
    window: int
    """Bytes that the client takes on the stream (HTTP/2); may be negative."""

@final
class Writer:
    """Writes to the sockets of many members in one call: with io_uring, or else by one `send` after another."""

    def __new__(cls, by_ring: bool, /) -> Writer:
        """Raise OSError where `by_ring` is true and the kernel offers no io_uring."""
    @property
    def by_ring(self) -> bool:
        """Whether io_uring is used. It becomes False for good if the kernel stops to take what it is given."""
    def write(self, members: dict[Member, _T], chunked: bytes, body: bytes, /) -> list[tuple[_T, int]]:
        """Write to each member; return the value of each one that did not take all, and how many bytes it took.

        HTTP/1.1 members are written `chunked`, HTTP/2 members one DATA frame with `body`. Those that took some bytes
        come first: their rest must be handed to their transport before anything else is written to it.
        """
