"""What a client may send on an HTTP/2 connection: h2's connection, with bounds on what it reads.

A frame takes h2 some twenty microseconds and its sender nothing, and 64 KB that come at once may hold seven thousand. So
they are read a few at a time, with everybody else's turn between; and those that carry nothing are counted:

- PING (CVE-2019-9512), SETTINGS (CVE-2019-9515), empty DATA (CVE-2019-9518), unknown frames, and all that is for streams
  which are gone: one each. PRIORITY, which browsers send by the hundred: a quarter.
- WINDOW_UPDATE: none for two with each DATA frame that the client has had, one otherwise.
- RST_STREAM has a bucket of its own (CVE-2023-44487).
- A head is refused as soon as its frames are too much (CVE-2024-27316: CONTINUATION without end), and by its fields'
  lengths, with 32 octets more for each, when it is whole (CVE-2019-9516: fields without a name or a value).
"""

from typing import cast

from h2.connection import H2Connection
from h2.events import Event
from h2.exceptions import DenialOfServiceError
from h2.frame_buffer import FrameBuffer
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PriorityFrame, RstStreamFrame, WindowUpdateFrame

from feed.limits.token_bucket import TokenBucket

RATION = 32
"""Frames of a connection that are read before it is somebody else's turn: a millisecond, or five of requests."""
BURST = 5
"""Seconds of frames that carry nothing that may come at once."""
EARNED = 2
"""WINDOW_UPDATE frames that a DATA frame is worth: one for the stream, one for the connection."""
EARNED_BY = 512
"""Octets of DATA that are worth one more: who reads in small pieces may say so."""
_CARRYING = frozenset({DataFrame, HeadersFrame, RstStreamFrame})
"""Frames that are free while their stream is there."""


class Rationed(FrameBuffer):
    """Hands out `ration` frames, then no more until it is set anew."""

    ration: int

    def __next__(self) -> Frame:
        """The next one."""
        if self.ration <= 0:
            raise StopIteration
        self.ration -= 1
        return super().__next__()


class Limited(H2Connection):
    """The server's end of one connection; made out of h2's by `limit`."""

    incoming_buffer: Rationed
    control: TokenBucket
    credit: int
    header_bytes: int

    @property
    def open_inbound_streams(self) -> int:
        """None, for the one check that asks: h2 ends the connection over its limit, and we refuse the stream."""
        _ = super().open_inbound_streams  # forgets those that have ended
        return 0

    def receive_some(self, data: bytes) -> tuple[list[Event], bool]:
        """Take `data`, and read a ration of frames; whether there may be more. Raises ProtocolError."""
        buffer = self.incoming_buffer
        buffer.ration = RATION
        events = self.receive_data(data)
        if (parts := buffer._headers_buffer) and sum(part.body_len for part in parts) > self.header_bytes:
            raise self._calm("a head without end")
        return events, buffer.ration <= 0

    def _receive_frame(self, frame: Frame) -> list[Event]:
        events = super()._receive_frame(frame)
        kind = type(frame)
        if kind is WindowUpdateFrame and self.credit > 0:
            self.credit -= 1
        elif (cost := self._cost(kind, frame, events)) and not self.control.take(cost):
            raise DenialOfServiceError("too many frames that carry nothing")  # receive_data sends the GOAWAY
        return events

    def _cost(self, kind: type[Frame], frame: Frame, events: list[Event]) -> float:
        if kind is PriorityFrame:
            return 0.25
        if isinstance(frame, DataFrame) and not frame.data and "END_STREAM" not in frame.flags:
            return 1
        return 0 if kind in _CARRYING and events else 1

    def _calm(self, text: str) -> DenialOfServiceError:
        error = DenialOfServiceError(text)
        self._terminate_connection(error.error_code)
        return error


def limit(connection: H2Connection, control_rate: int, header_bytes: int) -> Limited:
    """The same connection with bounds; frames a second, octets."""
    connection.__class__ = Limited
    connection.incoming_buffer.__class__ = Rationed
    limited = cast(Limited, connection)
    limited.incoming_buffer.ration = RATION
    limited.control = TokenBucket(control_rate * BURST, control_rate)
    limited.credit = RATION  # windows are opened before there is anything to read
    limited.header_bytes = header_bytes
    limited.decoder.max_header_list_size = header_bytes  # without waiting for the client's word that it knows
    return limited
