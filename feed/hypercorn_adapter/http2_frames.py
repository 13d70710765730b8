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

from typing import NoReturn

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import (
    DenialOfServiceError,
    FrameTooLargeError,
    ProtocolError,
    StreamClosedError,
    StreamIDTooLowError,
)
from h2.frame_buffer import FrameBuffer
from h2.settings import SettingCodes, Settings
from hyperframe.frame import DataFrame, Frame, HeadersFrame, PriorityFrame, RstStreamFrame, WindowUpdateFrame

from feed.hypercorn_adapter.config import WireConfig
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
    """A frame buffer that hands out `ration` frames, and then no more until the ration is set anew."""

    ration: int

    def __next__(self) -> Frame:
        """Return the next frame; raises StopIteration where there is none, or the ration is used up."""
        if self.ration <= 0:
            raise StopIteration
        self.ration -= 1
        return super().__next__()


class _Refused:
    """Stands for a frame that was handled, and refused for `error`: h2 decides what follows from that."""

    def __init__(self, error: ProtocolError) -> None:
        self.error = error


def _refuse(frame: _Refused) -> NoReturn:
    raise frame.error


class Limited(H2Connection):
    """The server's end of one connection."""

    incoming_buffer: Rationed
    control: TokenBucket
    credit: int
    header_bytes: int
    look_at: int
    """How many streams there may be, with those that have ended, before the latter are forgotten."""

    @property
    def open_inbound_streams(self) -> int:
        """Return 0 to the one check that asks: over its limit h2 ends the connection, where we refuse the stream alone."""
        if len(self.streams) >= self.look_at:
            _ = super().open_inbound_streams  # looks at every stream, and forgets those that have ended
            self.look_at = 2 * len(self.streams) + RATION
        return 0

    def receive_some(self, data: bytes) -> tuple[list[Event], bool]:
        """Add `data` and read a ration of frames: their events, and whether more may be left. Raises ProtocolError."""
        buffer = self.incoming_buffer
        buffer.ration = RATION
        events = self.receive_data(data)
        if (parts := buffer._headers_buffer) and sum(part.body_len for part in parts) > self.header_bytes:
            raise self._calm("a head without end")
        return events, buffer.ration <= 0

    def look_ahead(self) -> None:
        """Raise ProtocolError for a frame that is announced too long, now and not when it has come."""
        pending = self.incoming_buffer._data
        if len(pending) >= 9 and int.from_bytes(pending[:3], "big") > self.max_inbound_frame_size:
            self.close_connection(ErrorCodes.FRAME_SIZE_ERROR)
            raise FrameTooLargeError("a frame is announced that is too long")

    def let_go(self) -> None:
        """Read no more frames: h2's table of what to do with them refers to the connection, which keeps itself alive."""
        self._frame_dispatch_table.clear()

    def _receive_frame(self, frame: Frame) -> list[Event]:
        kind = type(frame)
        try:
            answered: tuple[list[Frame], list[Event]] = self._frame_dispatch_table[kind](frame)
            answers, events = answered
        except (StreamClosedError, StreamIDTooLowError) as error:
            self._frame_dispatch_table[_Refused] = _refuse  # type: ignore[index]
            events = super()._receive_frame(_Refused(error))  # type: ignore[arg-type]
        else:  # h2's own method writes a description of each frame, for a log that is not kept
            self._prepare_for_sending(answers)
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


def limited_connection(config: WireConfig, clients: int) -> Limited:
    """Make the server's end of a connection that `clients` clients share."""
    connection = Limited(config=H2Configuration(client_side=False, header_encoding=None))
    connection.DEFAULT_MAX_INBOUND_FRAME_SIZE = config.h2_max_inbound_frame_size
    connection.local_settings = Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: config.h2_max_concurrent_streams,
            SettingCodes.MAX_HEADER_LIST_SIZE: config.h2_max_header_list_size,
        },
    )
    connection.incoming_buffer.__class__ = Rationed
    connection.incoming_buffer.ration = RATION
    rate = config.h2_control_rate * clients
    connection.control = TokenBucket(rate * BURST, rate)
    connection.credit = RATION  # windows are opened before there is anything to read
    connection.header_bytes = config.header_bytes
    connection.look_at = RATION
    connection.decoder.max_header_list_size = config.header_bytes  # without waiting for the client's word that it knows
    return connection
