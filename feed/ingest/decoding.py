"""The body of an answer: content codings are undone as it comes, within a bound."""

import zlib
from collections.abc import Iterator
from io import BytesIO

from feed.ingest.adapter import FetchError

ACCEPTED = "gzip, deflate"
"""What is asked for in `Accept-Encoding`."""
_GZIP = b"\x1f\x8b"
"""What a gzip member begins with."""
_STEP = 1024 * 1024
"""Bytes that are decompressed in one turn of the event loop: about 2 ms."""


class Body:
    """Collects a body that comes in pieces. Raises FetchError as soon as it is over `most` bytes, decompressed or not."""

    def __init__(self, coding: str, most: int) -> None:
        self._most = most
        self._whole = BytesIO()
        self._raw = 0
        self._gzip = coding in ("gzip", "x-gzip")
        self._inflate = zlib.decompressobj(wbits=47) if self._gzip else None
        self._ended = False
        if coding == "deflate":
            self._inflate = zlib.decompressobj()
        elif not self._gzip and coding not in ("", "identity"):
            raise FetchError(f"the answer is encoded as {coding[:40]!r}, which was not asked for", "server", 200)

    def add(self, piece: bytes) -> Iterator[None]:
        """Take the next piece, in steps, so that others get their turn between them."""
        self._raw += len(piece)
        if self._raw > self._most:
            raise too_large(self._most)
        if self._inflate is None:
            self._whole.write(piece)
            return
        try:
            yield from self._decompress(piece)
        except zlib.error as error:
            raise FetchError(f"the answer cannot be decompressed: {error}", "truncated", 200) from None

    def end(self) -> bytes:
        """Return the whole body; raises FetchError where a compressed one has no end."""
        if self._inflate is not None and self._raw:
            self._whole.write(self._inflate.flush())  # the last bytes, where a step was full exactly before them
        if self._inflate is not None and self._raw and not self._inflate.eof:
            raise FetchError("the answer ends in the middle of its compressed data", "truncated", 200)
        return self._whole.getvalue()

    def _decompress(self, piece: bytes) -> Iterator[None]:
        while piece and self._inflate is not None:
            if self._inflate.eof:
                if not (self._gzip and piece.startswith(_GZIP)):
                    return  # padding
                self._inflate = zlib.decompressobj(wbits=31)  # several gzip members are one body
            self._whole.write(self._inflate.decompress(piece, _STEP))
            if self._whole.tell() > self._most:
                raise too_large(self._most)
            piece = self._inflate.unused_data or self._inflate.unconsumed_tail
            yield


def too_large(most: int) -> FetchError:
    """Return the error of an answer that is over `most` bytes."""
    return FetchError(f"the answer is larger than {most:,} bytes (FEED_INGEST_MAX_BYTES)", "too_large", 200)
