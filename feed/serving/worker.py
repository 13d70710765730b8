"""A worker: its place, which the master keeps, and the process that has the place, from its fork to its end."""

import asyncio
import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import structlog
import uvloop

from feed import errors
from feed.errors import FeedError
from feed.observability.shared_metrics import abandon, take_place
from feed.service import Service
from feed.serving.server import serve_until
from feed.serving.signals import STOP_SIGNALS
from feed.settings.settings import Settings

log = structlog.get_logger(__name__)

_FIRST_WAIT = 0.1  # seconds before the successor of a worker that died, doubling with each that dies in a row
_LONGEST_WAIT = 5.0  # its share of the new connections waits as long
_STEADY = 30.0  # seconds after which a worker that dies is the first in a row
_READY = b"ready"


class Worker:
    """A place among the workers: its socket, and the process that has the place now."""

    def __init__(self, number: int, listener: socket.socket) -> None:
        self.number = number
        self.listener = listener
        self.link: socket.socket | None = None  # None: there is no process
        self.pid = 0
        self.said = b""
        self.began = 0.0
        self.due = 0.0  # when the next process may start
        self.deaths = 0  # in a row

    @property
    def ready(self) -> bool:
        """Whether its process answers requests."""
        return self.said.startswith(_READY)

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal; one that has died is not waited for yet, so the id is still its own."""
        os.kill(self.pid, number)

    def wait(self) -> float:
        """Let the next process wait, and return for how long, in seconds."""
        now = time.monotonic()
        self.deaths = 1 if now - self.began > _STEADY else self.deaths + 1
        longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(self.deaths - 1, 16))
        seconds = random.uniform(longest / 2, longest)
        self.due = now + seconds
        return seconds


def work(
    settings: Settings, number: int, listener: socket.socket, link: socket.socket,
    first: Callable[[Service], None] | None,
) -> int:  # fmt: skip
    """Serve on `listener` until the end, in a process of its own; returns the exit code.

    `link` leads to the master: it is told when requests are answered, or why they never will be. `first` is handed the
    service of worker 0.
    """
    ready = False
    structlog.contextvars.bind_contextvars(worker=number)
    take_place(number)

    def started(_url: str, service: Service) -> None:
        nonlocal ready
        if first is not None and number == 0:
            first(service)
        ready = True
        with suppress(OSError):  # the master is gone, which is noticed elsewhere
            link.sendall(_READY)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, listener, link, started))
    except BaseException as error:
        if isinstance(error, FeedError) and not ready:
            link.sendall(json.dumps([type(error).__name__, str(error)]).encode())
        else:
            log.exception("worker failed")
        return 1
    return 0


async def _serve(
    settings: Settings, listener: socket.socket, link: socket.socket, started: Callable[[str, Service], None]
) -> None:
    """Serve until a signal comes or the master is gone. More signals change nothing, up to the end of the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def signalled(*_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    def orphaned() -> None:
        log.warning("the master is gone")
        loop.remove_reader(link)
        stop.set()
        abandon()

    # Not the loop's own way: one that closes may give the signals back to the system, and the next would kill.
    for number in STOP_SIGNALS:
        signal.signal(number, signalled)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    loop.add_reader(link, orphaned)  # the master never says anything: what can be read is its end
    await serve_until(stop, settings, started, listener)


def refusal_of(said: bytes) -> FeedError:
    """The error for which a worker refused to start, as it would have been raised here."""
    name, text = json.loads(said)
    error: FeedError = getattr(errors, name, FeedError)(text)
    return error
