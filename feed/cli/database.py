"""The database of the commands that work on it directly: how it is named on the command line, and how it is opened."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import typer

from feed.database.embedded import embedded
from feed.errors import ConfigurationError
from feed.settings.settings import Settings, load_settings

DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database-url", metavar="URL",
        help="The feed's database. [default: DATABASE_URL, else the embedded Postgres]",
    ),
]  # fmt: skip
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="FOLDER", help="Folder of the embedded Postgres, as `feed serve` was told."),
]


class NoDatabase(ConfigurationError):
    """The data folder holds no embedded database, and no other one was named."""


def settings_of(database_url: str | None, data_dir: Path | None, **flags: Any) -> Settings:
    """Return the settings with what the command line says of the database; it wins over the environment.

    Raises ConfigurationError. A flag that is None was not given.
    """
    if database_url is not None and data_dir is not None:
        raise ConfigurationError(
            "--database-url names a database of yours and --data-dir an embedded one: give one of the two."
        )
    given = {name: value for name, value in flags.items() if value is not None}
    if database_url is not None:
        given["database_url"] = database_url
    if data_dir is not None:
        given |= {"data_dir": data_dir, "database_url": None}
    return load_settings(**given)


@asynccontextmanager
async def existing_database(settings: Settings) -> AsyncIterator[str]:
    """Yield the DSN of the database that the settings name; an embedded one runs meanwhile, and is never created here.

    Raises NoDatabase where the data folder holds none, ConfigurationError where it cannot be started.
    """
    if settings.database.url is not None:
        yield settings.database.url
        return
    folder = settings.database.data_dir
    if not _holds_database(folder):
        raise NoDatabase(
            f"There is no database in {folder}. Name the folder that `feed serve` uses with --data-dir or FEED_DATA_DIR, "
            "or a database of yours with --database-url or DATABASE_URL. (`feed serve` creates one at its first start.)"
        )
    async with embedded(folder) as dsn:
        yield dsn


def without_password(dsn: str) -> tuple[str, str | None]:
    """Return `dsn` without its password, and the password (None: it has none), to keep it from logs and command lines."""
    parts = urlsplit(dsn)
    user, at, hosts = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    if not colon:
        return dsn, None
    return parts._replace(netloc=f"{name}{at}{hosts}").geturl(), unquote(password) or None


def _holds_database(folder: Path) -> bool:
    try:
        return (folder / "postgres" / "PG_VERSION").exists()
    except PermissionError as error:
        raise ConfigurationError(
            f"The folder {folder} cannot be read: {error.strerror}. Run this as the user that runs `feed serve`."
        ) from None
