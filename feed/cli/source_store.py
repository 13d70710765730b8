"""The sources of a database, as the commands that work on them open them and find one by its name."""

import asyncio
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from feed.cli.database import NoDatabase, existing_database, settings_of
from feed.database.check import check
from feed.database.connect import pool, translated
from feed.database.migrate import migrate
from feed.database.source_runs import Known, SourceRuns
from feed.database.sources import SourceStore
from feed.errors import FeedError, Invalid, NotFound
from feed.model.source import Source
from feed.settings.settings import Settings

T = TypeVar("T")


def with_store(
    database_url: str | None,
    data_dir: Path | None,
    work: Callable[[SourceStore], Awaitable[T]],
    *,
    prepare: bool = False,
) -> T:
    """Do `work` on the sources of an existing database; `prepare`: where the feed's schema is not there yet, create it.

    Raises FeedError where the store refuses it, without the name of a field that nobody has typed.
    """
    settings = settings_of(database_url, data_dir)

    async def run() -> T:
        async with existing_database(settings) as dsn:
            await check(settings.database, dsn)
            if prepare:
                await migrate(settings, dsn)
            async with pool(settings.database, dsn) as connections:
                try:
                    return await work(SourceStore(connections))
                except Invalid as error:
                    raise FeedError(error.faults[0].message) from None

    return asyncio.run(run())


async def find_source(store: SourceStore, name: str) -> Source:
    """Return the source of that name; raises NotFound, with the name that was likely meant."""
    try:
        return await store.read(name)
    except NotFound as error:
        near = get_close_matches(name, [one.name for one in await store.list()], 1)
        raise NotFound(f"{error}{f'. Did you mean {near[0]}?' if near else ''}") from None


async def stored_source(settings: Settings, name: str) -> tuple[Source | None, dict[str, Known]]:
    """Return a source and its postings that are open as far as we know; None where there is none, or no database yet."""
    try:
        async with existing_database(settings) as dsn, pool(settings.database, dsn) as connections:
            with translated():
                if await connections.fetchval("SELECT to_regclass('source')") is None:
                    return None, {}
            source = await SourceStore(connections).read(name)
            return source, await SourceRuns(connections).known(source)
    except (NoDatabase, NotFound):
        return None, {}
