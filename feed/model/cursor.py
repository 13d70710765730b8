"""A cursor: the id that a client sends back, `<epoch>.<position>` or a position alone."""

import re
from dataclasses import dataclass

# An epoch has 12 digits today and never more than 15 (next_epoch() in 0003_log.sql); 19 digits hold any bigint. A longer
# number cannot be ours and is refused before int() sees it.
_SHAPE = re.compile(r"(?:([0-9]{1,15})\.)?([0-9]{1,19})\Z")
_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the log: the client has seen everything up to and including `position`."""

    position: int
    epoch: int | None = None  # None is the epoch in force

    def __str__(self) -> str:
        return str(self.position) if self.epoch is None else f"{self.epoch}.{self.position}"


def parse_cursor(text: str) -> Cursor | None:
    """Return the cursor that `text` spells, or None where it spells none. The stream then begins with a `reset`."""
    found = _SHAPE.match(text.strip())
    if found is None or int(found[2]) > _LARGEST:
        return None
    return Cursor(int(found[2]), int(found[1]) if found[1] is not None else None)
