"""Groups: subscribers with equal filters are matched once and handed the same bytes. An index finds those that may match."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from feed.fanout.encoded_event import EncodedEvent
from feed.fanout.subscriber import Subscriber, Totals
from feed.model.filter import Filter, Terms
from feed.wire.chunk import Chunk
from feed.wire.wire import Wire

if TYPE_CHECKING:
    from feed.wire.native._batch import Member, Writer

_FEW = 4
"""Members below which a native call is not worth it: one by one, frames for streams of one connection leave in one write,
also those of other groups."""


class Group:
    """The live subscribers of one filter.

    Those that the native writer can write to are written to in one call, all others one by one.
    """

    __slots__ = ("_by_hand", "_native", "_writer", "filter", "totals")

    def __init__(self, wanted: Filter, writer: "Writer | None" = None) -> None:
        self.filter = wanted
        self.totals = Totals()  # what the group was sent since it was made; see Subscriber.enter_group
        self._writer = writer
        self._by_hand: dict[Subscriber, Wire] = {}
        self._native: dict[Member, Subscriber] = {}

    def __len__(self) -> int:
        return len(self._by_hand) + len(self._native)

    def __bool__(self) -> bool:
        return bool(self._by_hand or self._native)

    @property
    def members(self) -> list[Subscriber]:
        """The subscribers as they are now."""
        return [*self._by_hand, *self._native.values()]

    def add(self, member: Subscriber) -> None:
        """Add a subscriber."""
        native = None if self._writer is None else member.wire.member()
        if native is None:
            self._by_hand[member] = member.wire
        else:
            self._native[native] = member

    def discard(self, member: Subscriber) -> None:
        """Remove a subscriber; one that is not here is ignored."""
        native = None if self._writer is None else member.wire.member()
        if native is None:
            self._by_hand.pop(member, None)
        else:
            self._native.pop(native, None)

    def offer(self, chunk: Chunk, upto: int, now: float) -> list[Subscriber]:
        """Write a chunk that ends at position `upto` to every member; return those that did not take it.

        For all others the caller notes in `totals` how far they were told.
        """
        refused = []
        for member, wire in self._by_hand.items():  # as `Subscriber.offer`, but it touches none that takes the chunk
            try:
                if wire.write(chunk):
                    continue
            except Exception:
                member.fail()
            refused.append(member)
        if self._writer is None or not self._native:
            return refused
        if len(self._native) < _FEW:
            return refused + [one for one in self._native.values() if not one.offer(chunk, upto, now)]
        # What the kernel did not take goes through the transport; the rest of what it took in part goes first.
        for member, sent in self._writer.write(self._native, chunk.chunked, chunk.body):
            taken = member.offer_rest(chunk, sent) if sent else member.live and member.offer(chunk, upto, now)
            if not taken:
                refused.append(member)
        return refused

    def select(self, batch: Iterable[EncodedEvent]) -> tuple[list[bytes], list[int]]:
        """Return the frames of the events that match, in order, and as many positions."""
        found = [(frame, one.position) for one in batch if (frame := one.frame_for(self.filter)) is not None]
        return [frame for frame, _ in found], [position for _, position in found]


class Groups:
    """All groups of a hub, by filter and by the values that an event must have for the filter to match."""

    def __init__(self, writer: "Writer | None" = None) -> None:
        self._writer = writer
        self._by_filter: dict[Filter, Group] = {}
        self._by_value: dict[str, dict[str, set[Group]]] = {}
        self._unindexed: set[Group] = set()

    def __iter__(self) -> Iterator[Group]:
        return iter(self._by_filter.values())

    def __len__(self) -> int:
        return len(self._by_filter)

    def join(self, wanted: Filter, member: Subscriber) -> Group:
        """Put a subscriber into the group of its filter, which is made where there is none. Returns the group."""
        group = self._by_filter.get(wanted)
        if group is None:
            group = self._by_filter[wanted] = Group(wanted, self._writer)
            for bucket in self._buckets(group):
                bucket.add(group)
        group.add(member)
        member.enter_group(group.totals)
        return group

    def leave(self, wanted: Filter, member: Subscriber) -> None:
        """Take a subscriber out of its group. An empty group is dropped."""
        group = self._by_filter.get(wanted)
        if group is None:
            return
        group.discard(member)
        member.leave_group()
        if not group:
            del self._by_filter[wanted]
            for bucket in self._buckets(group):
                bucket.discard(group)
            self._sweep(wanted)

    def candidates(self, batch: Sequence[EncodedEvent]) -> dict[Group, Sequence[EncodedEvent]]:
        """Return the groups that may match, each with the events of the batch that it must look at, in order."""
        found: dict[Group, Sequence[EncodedEvent]] = dict.fromkeys(self._unindexed, batch)
        if not self._by_value:
            return found
        indexed: dict[Group, list[EncodedEvent]] = {}
        for encoded in batch:
            if not encoded.frame:
                continue
            now, before = encoded.terms
            concerned = self._concerned(now)
            if before is not now:
                concerned |= self._concerned(before)
            for group in concerned:
                indexed.setdefault(group, []).append(encoded)
        return found | indexed

    def _concerned(self, terms: Terms) -> set[Group]:
        groups: set[Group] = set()
        for name, values in self._by_value.items():
            for value in terms.values(name):
                groups |= values.get(value, _NONE)
        return groups

    def _buckets(self, group: Group) -> Iterator[set[Group]]:
        equalities = group.filter.equalities()
        if equalities is None:
            yield self._unindexed
            return
        name, values = equalities
        named = self._by_value.setdefault(name, {})
        for value in values:
            yield named.setdefault(value, set())

    def _sweep(self, wanted: Filter) -> None:
        """Drop the buckets of the index that a group left empty: the number of filters over time has no bound."""
        equalities = wanted.equalities()
        if equalities is None:
            return
        name, values = equalities
        named = self._by_value[name]
        for value in values:
            if not named.get(value):
                named.pop(value, None)
        if not named:
            del self._by_value[name]


_NONE: frozenset[Group] = frozenset()
