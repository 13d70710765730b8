"""Replay blocks: whole ones are put together once, and what comes out is what went in, whatever the cut."""

from collections.abc import Iterator, Sequence

from feed.fanout.encoded_event import EncodedEvent
from feed.fanout.replay_blocks import BLOCK, ReplayBlock, ReplayBlocks
from feed.model.filter import EVERYTHING, Filter
from tests.unit.events import encoded

LARGE = 10**9


def of(
    blocks: ReplayBlocks, wanted: Filter, events: Sequence[EncodedEvent], generation: int = 0
) -> Iterator[ReplayBlock]:
    """The blocks of dense events."""
    return blocks.of(wanted, events, events[0].position - 1, events[-1].position, generation)


def test_blocks_end_at_multiples_of_their_size_and_lose_nothing() -> None:
    events = encoded(range(1, 3 * BLOCK + 31))
    for begin in (0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 7):
        found = list(of(ReplayBlocks(LARGE), EVERYTHING, events[begin:]))
        assert b"".join(one.chunk.body for one in found) == b"".join(one.frame for one in events[begin:])
        assert sum(one.count for one in found) == len(events) - begin
        assert found[-1].upto == events[-1].position
        assert all(one.upto % BLOCK == 0 for one in found[:-1])


def test_whole_blocks_are_one_object_for_all_with_the_filter_and_parts_are_not() -> None:
    blocks, events = ReplayBlocks(LARGE), encoded(range(1, 2 * BLOCK + 11))
    one, other = list(of(blocks, EVERYTHING, events)), list(of(blocks, Filter(), events[BLOCK:]))
    assert one[1] is other[0]
    assert one[2] is not other[1]
    narrow = list(of(blocks, Filter(company=("nobody",)), events))
    assert [(part.count, part.chunk.body) for part in narrow] == [(0, b"")] * 3


def test_a_block_that_has_not_ended_is_read_afresh_when_it_has_grown() -> None:
    blocks, events = ReplayBlocks(LARGE), encoded(range(1, BLOCK + 1))
    assert next(of(blocks, EVERYTHING, events[:10])).upto == 10
    assert next(of(blocks, EVERYTHING, events)).upto == BLOCK


def test_the_least_recently_wanted_go_first() -> None:
    events = encoded(range(1, 3 * BLOCK + 1))
    first, second, third = of(ReplayBlocks(LARGE), EVERYTHING, events)
    blocks = ReplayBlocks(2 * (first.chunk.size + second.chunk.size) + 1100)
    first, second = of(blocks, EVERYTHING, events[: 2 * BLOCK])
    assert next(of(blocks, EVERYTHING, events)) is first
    assert next(of(blocks, EVERYTHING, events[2 * BLOCK :])).upto == third.upto
    assert next(of(blocks, EVERYTHING, events[:BLOCK])) is first
    assert next(of(blocks, EVERYTHING, events[BLOCK : 2 * BLOCK])) is not second


def test_another_generation_of_the_log_voids_all_blocks() -> None:
    blocks, events = ReplayBlocks(LARGE), encoded(range(1, BLOCK + 1))
    before = next(of(blocks, EVERYTHING, events))
    assert next(of(blocks, EVERYTHING, events)) is before
    after = next(of(blocks, EVERYTHING, events, 1))
    assert after is not before
    assert next(of(blocks, EVERYTHING, events, 1)) is after


def test_blocks_of_what_was_left_in_are_those_of_all_events() -> None:
    events = [
        one for n in range(1, 5 * BLOCK) for one in encoded([n], company="Acme" if n % (2 * BLOCK) == 7 else "Other")
    ]
    wanted = Filter(company=("acme",))
    for after, upto in ((0, 5 * BLOCK - 1), (3, 2 * BLOCK + 7), (2 * BLOCK + 7, 4 * BLOCK)):
        some = [one for one in events if after < one.position <= upto and one.position % (2 * BLOCK) in (7, 8)]
        found, same = (
            [(one.upto, one.count, one.chunk.body) for one in ReplayBlocks(LARGE).of(wanted, given, after, upto, 0)]
            for given in (some, events[after:upto])
        )
        assert found == same
        assert found[-1][0] == upto
