"""Metrics of several workers as one: each writes files of its own into a shared folder, and any can be asked for all.

It is prometheus-client's multiprocess mode, which `PROMETHEUS_MULTIPROC_DIR` turns on. A worker's files are named by its
place among the workers and not by its process id: a successor goes on in them, so counters never fall.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import Any

from prometheus_client import multiprocess, values

from feed.errors import ConfigurationError

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "feed-metrics-"
_LOCK = "lock"


def folder() -> str | None:
    """The shared folder; None where this process is alone."""
    return os.environ.get(FOLDER)


@contextmanager
def sharing() -> Iterator[None]:
    """Have the processes that are started meanwhile share their metrics. For a master, which has none of its own."""
    try:
        _sweep()
        made = tempfile.mkdtemp(prefix=_PREFIX)
        lock = _locked(Path(made))
    except OSError as error:
        raise ConfigurationError(f"no folder for the workers' metrics can be made: {error}. Set TMPDIR.") from None
    before = os.environ.get(FOLDER)
    os.environ[FOLDER] = made
    try:
        yield
    finally:
        rmtree(made, ignore_errors=True)
        os.close(lock)
        if before is None:
            del os.environ[FOLDER]
        else:
            os.environ[FOLDER] = before


def _locked(made: Path) -> int:
    """Lock a folder for as long as this process lives, or a fork of it; returns the file that has to stay open."""
    lock = os.open(made / "new", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    (made / "new").rename(made / _LOCK)  # nobody looks before it is locked
    return lock


def _sweep() -> None:
    """Remove what masters left behind that were killed with all their workers."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(left / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def take_place(number: int) -> None:
    """Be worker `number` of those that share, from before the first instrument is made to the end of the process."""
    theirs: Any = values
    theirs.ValueClass = theirs.MultiProcessValue(lambda: number)


def leave_place(number: int) -> None:
    """Forget what worker `number`, which is dead, said of its present; what it has counted stays."""
    with suppress(OSError):
        multiprocess.mark_process_dead(number)  # type: ignore[no-untyped-call]


def abandon() -> None:
    """Remove the folder: the master is gone, and nobody else will."""
    if (found := folder()) is not None and Path(found).name.startswith(_PREFIX):
        rmtree(found, ignore_errors=True)
