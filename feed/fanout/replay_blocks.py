"""Replay blocks: the frames of a hundred positions, put together once for all who replay them with the same filter."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from feed.fanout.encoded_event import EncodedEvent
from feed.model.filter import Filter
from feed.wire.chunk import Chunk

BLOCK = 100
"""Positions in a block; block n holds n * BLOCK + 1 and those that follow."""


@dataclass(frozen=True, slots=True)
class ReplayBlock:
    """The frames that a filter's subscribers get of some positions, a whole block or a part of one."""

    upto: int
    """The last of the positions."""
    count: int
    """Events among them that the filter wants, maybe none."""
    chunk: Chunk


class ReplayBlocks:
    """Whole blocks by number and filter, bounded by bytes; the least recently used ones go first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: OrderedDict[tuple[int, Filter], ReplayBlock] = OrderedDict()
        self._bytes = 0
        self._generation = 0

    def of(
        self, wanted: Filter, events: Sequence[EncodedEvent], after: int, upto: int, generation: int
    ) -> Iterator[ReplayBlock]:
        """Yield the events with after < position <= upto as blocks; only whole blocks are kept and shared.

        `events` are all of these positions that the filter wants, and maybe others. They belong to one generation of the
        log: another one voids all blocks.
        """
        if generation != self._generation:
            self._held.clear()
            self._bytes = 0
            self._generation = generation
        begin = 0
        while after < upto:
            number, offset = divmod(after, BLOCK)
            last = min(after + BLOCK - offset, upto)
            end = bisect_right(events, last, begin, key=_position)
            part = events[begin:end]
            if part and last - after == BLOCK:
                yield self._block(number, wanted, part)
            else:
                yield _join(wanted, part, last)
            after, begin = last, end

    def _block(self, number: int, wanted: Filter, events: Sequence[EncodedEvent]) -> ReplayBlock:
        key = number, wanted
        found = self._held.get(key)
        if found is not None:
            self._held.move_to_end(key)
            return found
        found = self._held[key] = _join(wanted, events, (number + 1) * BLOCK)
        self._bytes += _cost(found)
        while self._bytes > self._size:
            self._bytes -= _cost(self._held.popitem(last=False)[1])
        return found


def _join(wanted: Filter, events: Sequence[EncodedEvent], upto: int) -> ReplayBlock:
    frames = [frame for one in events if (frame := one.frame_for(wanted)) is not None]
    return ReplayBlock(upto, len(frames), Chunk(b"".join(frames)))


def _position(event: EncodedEvent) -> int:
    return event.position


def _cost(block: ReplayBlock) -> int:
    """The bytes that a block takes: its body in both framings, and what an entry takes by itself."""
    return 2 * block.chunk.size + 500
