"""Joined blocks: stretches of replay whose frames are put together once for all who come by with the same filter."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from feed.fanout.encoded import Encoded
from feed.model.filter import Filter
from feed.wire.chunk import Chunk

BLOCK = 100
"""Positions a block; block n holds n * BLOCK + 1 and the next."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a filter's subscribers get of some positions, the last of which is `upto`; `count` events, maybe none."""

    upto: int
    count: int
    chunk: Chunk


class Joined:
    """Whole blocks by number and filter, bounded by bytes; the least recently wanted go first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: OrderedDict[tuple[int, Filter], Stretch] = OrderedDict()
        self._bytes = 0

    def stretches(self, wanted: Filter, events: Sequence[Encoded]) -> Iterator[Stretch]:
        """Dense events as stretches that end where blocks do; only whole blocks are shared."""
        begin = 0
        while begin < len(events):
            number, offset = divmod(events[begin].position - 1, BLOCK)
            end = begin + BLOCK - offset
            if offset or end > len(events):
                yield _join(wanted, events[begin:end])
            else:
                yield self._block(number, wanted, events[begin:end])
            begin = end

    def clear(self) -> None:
        """Forget everything: the log took another course."""
        self._held.clear()
        self._bytes = 0

    def _block(self, number: int, wanted: Filter, events: Sequence[Encoded]) -> Stretch:
        key = number, wanted
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
            return found
        found = self._held[key] = _join(wanted, events)
        self._bytes += _cost(found)
        while self._bytes > self._size:
            self._bytes -= _cost(self._held.popitem(last=False)[1])
        return found


def _join(wanted: Filter, events: Sequence[Encoded]) -> Stretch:
    frames = [frame for one in events if (frame := one.frame_for(wanted)) is not None]
    return Stretch(events[-1].position, len(frames), Chunk(b"".join(frames)))


def _cost(stretch: Stretch) -> int:
    """Bytes, with both framings and what an entry takes by itself."""
    return 2 * stretch.chunk.size + 500
