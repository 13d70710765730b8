"""What modules log, caught without a change of the logging that others have configured."""

from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

import structlog


@contextmanager
def logged_by(*modules: ModuleType) -> Iterator[list[MutableMapping[str, Any]]]:
    """Catch the entries that `modules` log meanwhile; their loggers may have been made for another configuration."""
    capture = structlog.testing.LogCapture()
    log = structlog.wrap_logger(structlog.ReturnLogger(), processors=[capture], cache_logger_on_first_use=False)
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(mock.patch.object(module, "log", log))
        yield capture.entries
