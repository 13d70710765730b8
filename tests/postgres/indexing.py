"""The search index in tests: entered by hand, step by step."""

from feed.database.indexer import Indexer
from feed.database.sequencer import Sequencer
from tests.conftest import make_settings
from tests.postgres.events import Connection, advanced


def make_indexer(dsn: str) -> Indexer:
    """Return an indexer that is not running."""
    settings = make_settings(dsn)
    return Indexer(settings, dsn, Sequencer(settings, dsn), lambda: 0)


async def index(connection: Connection, dsn: str) -> None:
    """Sequence what was captured, and enter all of it into the search index."""
    await advanced(connection)
    indexer = make_indexer(dsn)
    while await indexer.step(connection):
        pass


async def indexed(connection: Connection) -> dict[int, bool]:
    """Return the ids that the index holds, and whether it takes each for open."""
    return {row["id"]: row["open"] for row in await connection.fetch("SELECT id, open FROM search")}
