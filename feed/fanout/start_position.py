"""Where a stream begins: what a client asked for, held against the log."""

from dataclasses import dataclass
from enum import StrEnum

from feed.fanout.history import History
from feed.fanout.hub import Hub
from feed.model.query import Start


class Lost(StrEnum):
    """Why a cursor is of no use."""

    MALFORMED = "malformed"
    AHEAD = "ahead"
    EPOCH = "epoch"
    PRUNED = "pruned"


@dataclass(frozen=True, slots=True)
class StartPosition:
    """Where a stream begins; `lost` where that is the head for want of anything better."""

    position: int
    lost: Lost | None = None


async def find_start_position(start: Start, hub: Hub, history: History) -> StartPosition:
    """Where to begin; raises DatabaseUnavailable where only the database can tell."""
    if start.malformed:
        return StartPosition(hub.head, Lost.MALFORMED)
    if start.earliest:
        return StartPosition((await history.reader.state()).floor)
    if start.since is not None:
        return StartPosition(await history.reader.position_before(start.since))
    cursor = start.cursor
    if cursor is None:
        return StartPosition(hub.head)
    epoch = hub.epoch if cursor.epoch is None else cursor.epoch
    if epoch == hub.epoch and cursor.position <= hub.head:
        return StartPosition(cursor.position)  # if it was pruned, replay will find out
    # The database judges, read afresh: this process may merely lag behind it.
    state = await history.reader.state()
    if cursor.epoch is not None and epoch != state.epoch:
        end = await history.reader.epoch_end(epoch)
        if end is None or cursor.position > end:
            return StartPosition(hub.head, Lost.EPOCH)
    if cursor.position > state.head:
        return StartPosition(hub.head, Lost.AHEAD)
    if cursor.position < state.floor:
        return StartPosition(hub.head, Lost.PRUNED)
    return StartPosition(cursor.position)
