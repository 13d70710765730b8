"""What is read of an HTTP/2 connection in one turn, and what its client may send that carries nothing."""

import pytest
from h2.errors import ErrorCodes
from h2.events import PingReceived
from h2.exceptions import ProtocolError
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, PingFrame, SettingsFrame, WindowUpdateFrame

from feed.hypercorn_adapter.config import WireConfig
from feed.hypercorn_adapter.http2_frames import BURST, RATION, Limited, limited_connection
from tests.h2client import PREFACE

PING = PingFrame(opaque_data=b"anybody?").serialize()
OPENED = WindowUpdateFrame(0, 1).serialize()


def connection(control_rate: int = 1_000, header_bytes: int = 16_384) -> Limited:
    """A connection whose client has greeted."""
    config = WireConfig()
    config.h2_control_rate, config.header_bytes = control_rate, header_bytes
    made = limited_connection(config, 1)
    made.initiate_connection()
    made.receive_some(PREFACE + SettingsFrame().serialize())
    made.clear_outbound_data_buffer()
    return made


def ended_with(made: Limited) -> int:
    """The error code of the GOAWAY that waits to be sent."""
    data = memoryview(made.data_to_send())
    while data:
        frame, length = Frame.parse_frame_header(data[:9])
        frame.parse_body(data[9 : 9 + length])
        data = data[9 + length :]
        if isinstance(frame, GoAwayFrame):
            return frame.error_code
    raise AssertionError("no GOAWAY")


def test_of_many_frames_a_ration_is_read_and_the_rest_when_asked_again() -> None:
    made = connection()
    data, came = PING * (2 * RATION + 5), []
    more = True
    while more:
        events, more = made.receive_some(data)
        came.append(sum(isinstance(event, PingReceived) for event in events))
        data = b""
    assert came == [RATION, RATION, 5]


def test_a_frame_in_pieces_is_read_when_it_is_whole() -> None:
    made = connection()
    for octet in PING[:-1]:
        assert made.receive_some(bytes([octet])) == ([], False)
    events, more = made.receive_some(PING[-1:])
    assert len(events) == 1
    assert not more


def test_frames_that_carry_nothing_end_the_connection_when_they_are_too_many() -> None:
    made = connection(control_rate=2)
    allowed = 2 * BURST - 1  # the greeting was one
    made.receive_some(PING * allowed)
    with pytest.raises(ProtocolError):
        made.receive_some(PING)
    assert ended_with(made) == ErrorCodes.ENHANCE_YOUR_CALM


def test_windows_are_opened_for_what_was_sent_and_a_little_more() -> None:
    made = connection(control_rate=1)
    made.credit = 100
    data = OPENED * (100 + BURST - 1)
    more = True
    while more:
        _, more = made.receive_some(data)
        data = b""
    with pytest.raises(ProtocolError):
        made.receive_some(OPENED)


def test_a_head_is_refused_before_it_is_whole() -> None:
    made = connection(header_bytes=1_000)
    made.receive_some(HeadersFrame(1, b"x" * 900).serialize())
    other = connection(header_bytes=1_000)
    with pytest.raises(ProtocolError):
        other.receive_some(HeadersFrame(1, b"x" * 1_100).serialize())
    assert ended_with(other) == ErrorCodes.ENHANCE_YOUR_CALM
