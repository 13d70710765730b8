"""Signals: which of them stop the service, and a socket by which the master of worker processes waits for them."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""Signals that begin the drain."""


@contextmanager
def signal_socket() -> Iterator[socket.socket]:
    """A socket from which the numbers of the signals can be read; they do nothing else, now or later."""
    reader, writer = socket.socketpair()
    with reader, writer:
        writer.setblocking(False)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield reader
        finally:
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # the end has begun
            signal.set_wakeup_fd(-1)
