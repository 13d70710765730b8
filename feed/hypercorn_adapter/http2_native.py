"""Windows of HTTP/2 that the native writer takes bytes off (feed/wire/native).

h2 keeps each window in an attribute of a Python object. Here these attributes read and write the native objects instead, so
that there is one number and no copy that could differ.
"""

from typing import TYPE_CHECKING

from h2.events import Event
from h2.stream import H2Stream

from feed.hypercorn_adapter.http2_frames import EARNED, Limited

if TYPE_CHECKING:
    from feed.wire.native._batch import Member, Socket


class NativeConnection(Limited):
    """The server's end of a connection whose window is the socket's."""

    socket: "Socket"

    @property
    def outbound_flow_control_window(self) -> int:
        """Bytes that the client takes on the whole connection."""
        return self.socket.window

    @outbound_flow_control_window.setter
    def outbound_flow_control_window(self, size: int) -> None:
        self.socket.window = size

    def receive_some(self, data: bytes) -> tuple[list[Event], bool]:
        """Read a ration of frames. The client may answer each DATA frame that was written natively, too."""
        self.credit += EARNED * self.socket.frames
        self.socket.frames = 0
        return super().receive_some(data)


class NativeStream(H2Stream):
    """A stream whose window is the member's."""

    member: "Member"

    @property
    def outbound_flow_control_window(self) -> int:
        """Bytes that the client takes on the stream."""
        return self.member.window

    @outbound_flow_control_window.setter
    def outbound_flow_control_window(self, size: int) -> None:
        self.member.window = size


def count_connection_natively(connection: Limited, socket: "Socket") -> None:
    """Keep the window of a connection in `socket` from now on."""
    socket.window = connection.outbound_flow_control_window
    connection.__class__ = NativeConnection
    connection.socket = socket  # type: ignore[attr-defined]


def count_stream_natively(stream: H2Stream, member: "Member") -> None:
    """Keep the window of a stream in `member` from now on."""
    member.window = stream.outbound_flow_control_window
    stream.__class__ = NativeStream
    stream.member = member  # type: ignore[attr-defined]
