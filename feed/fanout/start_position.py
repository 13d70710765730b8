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


async def find_start_position(start: Start, hub: Hub, history: History) -> StartPosition:
    """Return where a stream is to begin. Raises DatabaseUnavailable where the database must be asked and is away."""
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
        return StartPosition(cursor.position)  # whether it was pruned, replay finds out
    # The database decides, since this process may merely lag behind it.
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
