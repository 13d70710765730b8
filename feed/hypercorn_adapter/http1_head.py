"""A request's head over HTTP/1.1, read strictly: h11's buffer, which refuses what two parsers may understand differently.

h11 takes a bare LF for the end of a line and unfolds lines that begin with white space (obs-fold), as RFC 9112 allows. A
proxy in front of us may read the same octets as other fields or other requests, which is how requests are smuggled past
it; so both are refused with 400 (RFC 9112, 2.2 and 5.2), in heads and in the trailers behind a body in chunks.
"""

import re

import h11
from h11._receivebuffer import ReceiveBuffer

_AMBIGUOUS = re.compile(rb"(?<!\r)\n|\n[ \t]")
"""A line that ends without CR, or one that begins with white space."""
_END = b"\r\n\r\n"


class StrictBuffer(ReceiveBuffer):
    """What has come and is not parsed yet."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Take the lines up to the next empty one; None where it has not come. Raises LocalProtocolError."""
        if self._data.startswith(b"\r\n"):
            self._extract(2)
            return []
        begin = self._multiple_lines_search  # what is before was looked at when it came
        end = self._data.find(_END, begin)
        whole = end >= 0
        if _AMBIGUOUS.search(self._data, begin, end + len(_END) if whole else len(self._data)):
            raise h11.LocalProtocolError("a line of the head is folded, or ends without CR", 400)
        if not whole:
            self._multiple_lines_search = max(0, len(self._data) - len(_END) + 1)
            return None
        return self._extract(end + len(_END))[: -len(_END)].split(b"\r\n")


class StrictConnection(h11.Connection):
    """The server's end of one connection; made out of h11's by `be_strict`."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return what has come next; raises RemoteProtocolError."""
        try:
            return super().next_event()
        except h11.RemoteProtocolError as error:
            # h11 raises it out of a method of its own, so that it and its traceback would keep each other alive.
            raise error.with_traceback(None) from None


def be_strict(connection: h11.Connection) -> None:
    """Let a new connection read heads strictly."""
    connection.__class__ = StrictConnection
    connection._receive_buffer.__class__ = StrictBuffer
