"""Sources by the names that people type."""

from difflib import get_close_matches

from feed.database.sources import SourceStore
from feed.errors import NotFound
from feed.model.source import Source


async def find_source(store: SourceStore, name: str) -> Source:
    """Return the source of that name; raises NotFound, with the name that was likely meant."""
    try:
        return await store.read(name)
    except NotFound as error:
        names = [one.name for one in await store.list()]
        near = get_close_matches(name, names, 1)
        raise NotFound(f"{error}{f'. Did you mean {near[0]}?' if near else ''}") from None
