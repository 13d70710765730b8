"""Replay blocks: whole ones are put together once, and what comes out is what went in, whatever the cut."""

from feed.fanout.replay_blocks import BLOCK, ReplayBlocks
from feed.model.filter import EVERYTHING, Filter
from tests.unit.events import encoded

LARGE = 10**9


def test_blocks_end_at_multiples_of_their_size_and_lose_nothing() -> None:
    events = encoded(range(1, 3 * BLOCK + 31))
    for begin in (0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 7):
        found = list(ReplayBlocks(LARGE).of(EVERYTHING, events[begin:], 0))
        assert b"".join(one.chunk.body for one in found) == b"".join(one.frame for one in events[begin:])
        assert sum(one.count for one in found) == len(events) - begin
        assert found[-1].upto == events[-1].position
        assert all(one.upto % BLOCK == 0 for one in found[:-1])


def test_whole_blocks_are_one_object_for_all_with_the_filter_and_parts_are_not() -> None:
    blocks, events = ReplayBlocks(LARGE), encoded(range(1, 2 * BLOCK + 11))
    one, other = list(blocks.of(EVERYTHING, events, 0)), list(blocks.of(Filter(), events[BLOCK:], 0))
    assert one[1] is other[0]
    assert one[2] is not other[1]
    narrow = list(blocks.of(Filter(company=("nobody",)), events, 0))
    assert [(part.count, part.chunk.body) for part in narrow] == [(0, b"")] * 3


def test_a_block_that_has_not_ended_is_read_afresh_when_it_has_grown() -> None:
    blocks, events = ReplayBlocks(LARGE), encoded(range(1, BLOCK + 1))
    assert next(blocks.of(EVERYTHING, events[:10], 0)).upto == 10
    assert next(blocks.of(EVERYTHING, events, 0)).upto == BLOCK


def test_the_least_recently_wanted_go_first() -> None:
    events = encoded(range(1, 3 * BLOCK + 1))
    first, second, third = ReplayBlocks(LARGE).of(EVERYTHING, events, 0)
    blocks = ReplayBlocks(2 * (first.chunk.size + second.chunk.size) + 1100)
    first, second = blocks.of(EVERYTHING, events[: 2 * BLOCK], 0)
    assert next(blocks.of(EVERYTHING, events, 0)) is first
    assert next(blocks.of(EVERYTHING, events[2 * BLOCK :], 0)).upto == third.upto
    assert next(blocks.of(EVERYTHING, events[:BLOCK], 0)) is first
    assert next(blocks.of(EVERYTHING, events[BLOCK : 2 * BLOCK], 0)) is not second


def test_another_generation_of_the_log_voids_all_blocks() -> None:
    blocks, events = ReplayBlocks(LARGE), encoded(range(1, BLOCK + 1))
    before = next(blocks.of(EVERYTHING, events, 0))
    assert next(blocks.of(EVERYTHING, events, 0)) is before
    after = next(blocks.of(EVERYTHING, events, 1))
    assert after is not before
    assert next(blocks.of(EVERYTHING, events, 1)) is after
