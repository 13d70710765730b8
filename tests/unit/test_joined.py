"""Joined blocks: whole ones are put together once, and what comes out is what went in, whatever the cut."""

from feed.fanout.replay_blocks import BLOCK, Joined
from feed.model.filter import EVERYTHING, Filter
from tests.unit.events import encoded

LARGE = 10**9


def test_stretches_end_where_blocks_do_and_lose_nothing() -> None:
    events = encoded(range(1, 3 * BLOCK + 31))
    for begin in (0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 7):
        found = list(Joined(LARGE).stretches(EVERYTHING, events[begin:]))
        assert b"".join(one.chunk.body for one in found) == b"".join(one.frame for one in events[begin:])
        assert sum(one.count for one in found) == len(events) - begin
        assert found[-1].upto == events[-1].position
        assert all(one.upto % BLOCK == 0 for one in found[:-1])


def test_whole_blocks_are_one_object_for_all_with_the_filter_and_parts_are_not() -> None:
    joined, events = Joined(LARGE), encoded(range(1, 2 * BLOCK + 11))
    one, other = list(joined.stretches(EVERYTHING, events)), list(joined.stretches(Filter(), events[BLOCK:]))
    assert one[1] is other[0]
    assert one[2] is not other[1]
    narrow = list(joined.stretches(Filter(company=("nobody",)), events))
    assert [(part.count, part.chunk.body) for part in narrow] == [(0, b"")] * 3


def test_a_block_that_has_not_ended_is_read_afresh_when_it_has_grown() -> None:
    joined, events = Joined(LARGE), encoded(range(1, BLOCK + 1))
    assert next(joined.stretches(EVERYTHING, events[:10])).upto == 10
    assert next(joined.stretches(EVERYTHING, events)).upto == BLOCK


def test_the_least_recently_wanted_go_first() -> None:
    events = encoded(range(1, 3 * BLOCK + 1))
    first, second, third = Joined(LARGE).stretches(EVERYTHING, events)
    joined = Joined(2 * (first.chunk.size + second.chunk.size) + 1100)
    first, second = joined.stretches(EVERYTHING, events[: 2 * BLOCK])
    assert next(joined.stretches(EVERYTHING, events)) is first
    assert next(joined.stretches(EVERYTHING, events[2 * BLOCK :])).upto == third.upto
    assert next(joined.stretches(EVERYTHING, events[:BLOCK])) is first
    assert next(joined.stretches(EVERYTHING, events[BLOCK : 2 * BLOCK])) is not second


def test_clear_forgets_everything() -> None:
    joined, events = Joined(LARGE), encoded(range(1, BLOCK + 1))
    before = next(joined.stretches(EVERYTHING, events))
    joined.clear()
    assert next(joined.stretches(EVERYTHING, events)) is not before
