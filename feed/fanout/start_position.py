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
class Place:
    """Where a stream begins; `lost` where that is the head for want of anything better."""

    position: int
    lost: Lost | None = None


async def place_of(start: Start, hub: Hub, history: History) -> Place:
    """Where to begin; raises DatabaseUnavailable where only the database can tell."""
    if start.malformed:
        return Place(hub.head, Lost.MALFORMED)
    if start.earliest:
        return Place((await history.reader.state()).floor)
    if start.since is not None:
        return Place(await history.reader.position_before(start.since))
    cursor = start.cursor
    if cursor is None:
        return Place(hub.head)
    epoch = hub.epoch if cursor.epoch is None else cursor.epoch
    if epoch == hub.epoch and cursor.position <= hub.head:
        return Place(cursor.position)  # if it was pruned, replay will find out
    # The database judges, read afresh: this process may merely lag behind it.
    state = await history.reader.state()
    if cursor.epoch is not None and epoch != state.epoch:
        end = await history.reader.epoch_end(epoch)
        if end is None or cursor.position > end:
            return Place(hub.head, Lost.EPOCH)
    if cursor.position > state.head:
        return Place(hub.head, Lost.AHEAD)
    if cursor.position < state.floor:
        return Place(hub.head, Lost.PRUNED)
    return Place(cursor.position)
