"""The position at which a stream begins: what a client asked for, compared with the log."""

from dataclasses import dataclass
from enum import StrEnum

from feed.fanout.history import History
from feed.fanout.hub import Hub
from feed.model.query import Start


class Lost(StrEnum):
    """Why a cursor is of no use: the reason in a `reset` frame."""

    MALFORMED = "malformed"
    AHEAD = "ahead"
    EPOCH = "epoch"
    PRUNED = "pruned"


@dataclass(frozen=True, slots=True)
class StartPosition:
    """The position at which a stream begins. Where the cursor is of no use it is the head, and `lost` says why."""

    position: int
    lost: Lost | None = None


def known_start_position(start: Start, hub: Hub) -> StartPosition | None:
    """Return where a stream is to begin; None where the database must be asked."""
    if start.malformed:
        return StartPosition(hub.head, Lost.MALFORMED)
    if start.earliest or start.since is not None:
        return None
    cursor = start.cursor
    if cursor is None:
        return StartPosition(hub.head)
    if (cursor.epoch is None or cursor.epoch == hub.epoch) and cursor.position <= hub.head:
        return StartPosition(cursor.position)  # whether it was pruned, replay finds out
    return None


async def ask_start_position(start: Start, hub: Hub, history: History) -> StartPosition:
    """Return where a stream is to begin that `known_start_position` does not know; raises DatabaseUnavailable."""
    if start.earliest:
        return StartPosition((await history.reader.state()).floor)
    if start.since is not None:
        return StartPosition(await history.reader.position_before(start.since))
    cursor = start.cursor
    # The database decides, since this process may merely lag behind it.
    state = await history.reader.state()
    if cursor is None:
        return StartPosition(state.head)
    if cursor.epoch is not None and cursor.epoch != state.epoch:
        end = await history.reader.epoch_end(cursor.epoch)
        if end is None or cursor.position > end:
            return StartPosition(hub.head, Lost.EPOCH)
    if cursor.position > state.head:
        return StartPosition(hub.head, Lost.AHEAD)
    if cursor.position < state.floor:
        return StartPosition(hub.head, Lost.PRUNED)
    return StartPosition(cursor.position)
