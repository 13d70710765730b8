"""A chunk: some frames of a stream's body, with the framing of HTTP/1.1 and HTTP/2 built once for all who get it."""

PIECE = 64 * 1024
"""Bytes handed over at once: who waits for a client to take them gives up on one that stops, not on one that is slow."""


class Chunk:
    """Bytes of `text/event-stream`, whole frames as a rule. Immutable; shared by every subscriber of a group."""

    __slots__ = ("_chunked", "_head", "_pieces", "body", "size")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.size = len(body)
        self._chunked: bytes | None = None
        self._head: bytes | None = None
        self._pieces: tuple[int, list[tuple[bytes, memoryview]]] = (0, [])

    @property
    def chunked(self) -> bytes:
        """The bytes as a chunk of HTTP/1.1 (RFC 9112, 7.1)."""
        if self._chunked is None:
            self._chunked = b"%x\r\n%b\r\n" % (self.size, self.body)
        return self._chunked

    @property
    def head(self) -> bytes:
        """The first five octets of an HTTP/2 DATA frame (RFC 9113, 4.1): length, type, no flags; a stream's id follows."""
        if self._head is None:
            self._head = data_head(self.size)
        return self._head

    def frames(self, most: int) -> list[tuple[bytes, memoryview]]:
        """Return HTTP/2 frames of at most `most` bytes: the beginning of each frame's head, and its payload, uncopied."""
        size, pieces = self._pieces
        if size != most:
            view = memoryview(self.body)
            found = [view[begin : begin + most] for begin in range(0, self.size, most)]
            pieces = [(data_head(len(piece)), piece) for piece in found]
            self._pieces = most, pieces
        return pieces

    def slices(self, most: int) -> "list[Chunk]":
        """Return the chunk in pieces of at most `most` bytes."""
        if self.size <= most:
            return [self]
        return [Chunk(self.body[begin : begin + most]) for begin in range(0, self.size, most)]


def data_head(size: int) -> bytes:
    """Return the first five octets of a DATA frame of `size` bytes without flags."""
    return size.to_bytes(3, "big") + b"\x00\x00"
