"""The master of the worker processes: owns their sockets, starts them, replaces those that die, and stops them all.

Workers are forks of a master that has imported everything and has neither threads nor an event loop nor a connection. A
fresh interpreter would spend over a second of CPU on imports at every start; a fork spends none and shares the memory.
Otherwise the master only waits.

Each worker has its own listening socket on the same address (SO_REUSEPORT), so the kernel spreads connections evenly, by a
hash. All sockets listen before the first worker starts, so that after a restart the first worker does not get every client.
The master keeps them open, so that connections queued for a worker that died are served by its successor.

The master and each worker share a socket pair, the link. Each learns from it when the other has died.
"""

import asyncio
import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import structlog

from feed.database.embedded import embedded
from feed.errors import FeedError
from feed.observability.logs import configure
from feed.observability.shared_metrics import leave_place, sharing
from feed.service import Service
from feed.serving.signals import STOP_SIGNALS, signal_socket
from feed.serving.sockets import allow_files, listeners_of, url_of, user_timeout_of
from feed.serving.worker import Worker, refusal_of, work
from feed.settings.settings import Settings

log = structlog.get_logger(__name__)

T = TypeVar("T")

_MARGIN = 5.0  # seconds that a worker has to end, after its drain


def serve_with_workers(
    settings: Settings, greet: Callable[[str], None], first: Callable[[Service], None] | None = None
) -> None:
    """Serve with `settings.listen.workers` processes until SIGTERM or SIGINT, then have each of them drain, and return.

    `greet` is called once, with the address, when all workers answer. `first` is called in worker 0, and in each of its
    successors, with the service. Raises FeedError if the service cannot start or a worker does not end cleanly.
    """
    configure(settings.logging.level, settings.logging.format)
    allow_files()
    with ExitStack() as stack:
        signals = stack.enter_context(signal_socket())
        listeners = [
            stack.enter_context(listener) for listener in listeners_of(settings.listen, user_timeout_of(settings))
        ]
        if settings.database.url is None:
            dsn = stack.enter_context(_database(settings.database.data_dir))
            settings = settings.changed(database_url=dsn)
        stack.enter_context(sharing())
        Master(settings, listeners, signals, greet, first).run()


class Master:
    """Starts the workers and waits: for signals, for what they say, for their ends."""

    def __init__(
        self, settings: Settings, listeners: list[socket.socket], signals: socket.socket,
        greet: Callable[[str], None], first: Callable[[Service], None] | None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._signals = signals
        self._greet: Callable[[str], None] | None = greet
        self._first = first
        self._url = url_of(settings.listen, listeners[0])
        self._workers = [Worker(number, listener) for number, listener in enumerate(listeners)]
        self._selector = selectors.DefaultSelector()
        self._deadline: float | None = None  # when workers that still run are killed; None until they are told to stop
        self._killed = False
        self._failure: FeedError | None = None

    @property
    def _running(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.link is not None]

    def run(self) -> None:
        """Return when all workers have ended after a signal; raises FeedError as `serve` does."""
        gc.collect()
        gc.freeze()  # no collection touches what the workers share
        with self._selector as selector:
            selector.register(self._signals, selectors.EVENT_READ)
            while self._deadline is None or self._running:
                # Signals first: a worker may have ended because of the same signal, sent to the whole process group.
                found = {key.data for key, _ in selector.select(self._patience())}
                if None in found:
                    self._stop(signal.Signals(self._signals.recv(1)[0]))
                for worker in found - {None}:
                    self._hear(worker, worker.link)
                self._kill_overdue()
                self._start_due()
        if self._failure is not None:
            raise self._failure

    def _patience(self) -> float | None:
        """Seconds until there is something to do unasked; None: for ever."""
        due = [worker.due for worker in self._workers if worker.link is None]
        if self._deadline is not None:
            due = [] if self._killed else [self._deadline]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _stop(self, number: signal.Signals) -> None:
        """Have every worker drain. Later calls change nothing."""
        if self._deadline is not None:
            return
        log.info("stopping", signal=number.name, workers=len(self._running))
        drain = max(self._settings.drain.window, self._settings.drain.deadline)
        self._deadline = time.monotonic() + drain + _MARGIN
        for worker in self._workers:
            worker.listener.close()  # the worker holds the last copy, so it closes with the worker
        for worker in self._running:
            worker.signal(number)

    def _kill_overdue(self) -> None:
        if self._deadline is None or self._killed or time.monotonic() < self._deadline:
            return
        self._killed = True
        for worker in self._running:
            log.error("worker killed", worker=worker.number, pid=worker.pid)
            worker.signal(signal.SIGKILL)

    def _hear(self, worker: Worker, link: socket.socket) -> None:
        said = link.recv(65536)
        if not said:
            self._bury(worker, link)
            return
        worker.said += said
        if worker.ready:
            log.info("worker ready", worker=worker.number, pid=worker.pid)
        if self._greet is not None and self._deadline is None and all(each.ready for each in self._workers):
            self._greet(self._url)
            self._greet = None

    def _bury(self, worker: Worker, link: socket.socket) -> None:
        """Wait for a worker that closed its end of the link, and note how it ended."""
        code = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])  # below 0: a signal
        self._selector.unregister(link)
        link.close()
        worker.link = None
        leave_place(worker.number)
        ended = log.bind(worker=worker.number, pid=worker.pid, code=code)
        refusal = refusal_of(worker.said) if worker.said and not worker.ready else None
        if refusal is not None and self._greet is not None:
            self._fail(refusal)
        elif code > 0 and self._greet is not None:
            self._fail(FeedError("a worker did not start; the log says why."))
        elif self._deadline is None:
            # Replace it even if it refused to start: the others serve, and a failover may make the database refuse a while.
            why = {} if refusal is None else {"error": str(refusal)}
            ended.warning("worker ended", seconds_to_next=round(worker.wait(), 3), **why)
        elif code:
            ended.error("worker ended")
            self._fail(FeedError("a worker did not end as it should; the log says which."))
        else:
            ended.info("worker ended")
        worker.said = b""

    def _fail(self, error: FeedError) -> None:
        self._failure = self._failure or error
        self._stop(signal.SIGTERM)

    def _start_due(self) -> None:
        if self._deadline is not None:
            return
        for worker in self._workers:
            if worker.link is None and worker.due <= time.monotonic():
                try:
                    self._start(worker)
                except OSError as error:
                    log.error("no worker could start", error=str(error), seconds_to_next=round(worker.wait(), 3))

    def _start(self, worker: Worker) -> None:
        ours, theirs = socket.socketpair()
        worker.began = time.monotonic()
        with theirs:
            # Block signals until the worker handles them.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
            try:
                worker.pid = os.fork()
                if not worker.pid:
                    self._become(worker, ours, theirs)
            except OSError:
                ours.close()
                raise
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        worker.link = ours
        self._selector.register(ours, selectors.EVENT_READ, worker)

    def _become(self, worker: Worker, ours: socket.socket, link: socket.socket) -> NoReturn:
        """Become `worker` in the forked process, and exit without unwinding the master's stack."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            self._signals.close()
            self._selector.close()
            ours.close()
            for other in self._workers:
                if other is not worker:
                    other.listener.close()
                if other.link is not None:  # it would outlive the master
                    other.link.close()
            code = work(self._settings, worker.number, worker.listener, link, self._first)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


@contextmanager
def _database(folder: Path) -> Iterator[str]:
    """Run the embedded database for the master, with no thread alive while workers are forked."""
    server = embedded(folder)
    with asyncio.Runner() as runner:

        def run(step: Callable[[], T]) -> T:
            with ThreadPoolExecutor(1) as threads:
                runner.get_loop().set_default_executor(threads)
                return step()

        dsn = run(lambda: runner.run(server.__aenter__()))
        try:
            yield dsn
        finally:
            run(lambda: runner.run(server.__aexit__(None, None, None)))
