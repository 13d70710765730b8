"""The ring: dense, bounded by number and by bytes, and read from either end."""

import sys

import pytest

from feed.fanout.ring import Ring
from tests.unit.events import encoded, positions

LARGE = 10**9


def test_an_empty_ring_covers_nothing() -> None:
    ring = Ring(10, LARGE)
    assert len(ring) == 0
    assert not ring.covers(0)
    assert not ring.covers(5)


def test_it_covers_from_just_before_its_oldest_event() -> None:
    ring = Ring(10, LARGE)
    ring.extend(encoded(range(5, 9)))
    assert not ring.covers(3)
    assert all(ring.covers(position) for position in (4, 5, 7, 8))


def test_the_oldest_fall_out_by_number() -> None:
    ring = Ring(3, LARGE)
    for position in range(1, 8):
        ring.extend(encoded([position]))
    assert len(ring) == 3
    assert positions(ring.after(4, 10)) == [5, 6, 7]
    assert not ring.covers(3)


def test_a_batch_larger_than_the_ring_leaves_its_end() -> None:
    ring = Ring(3, LARGE)
    ring.extend(encoded(range(1, 100)))
    assert positions(ring.after(96, 10)) == [97, 98, 99]


def test_the_oldest_fall_out_by_bytes() -> None:
    batch = encoded(range(10, 20))
    ring = Ring(1000, 4 * batch[0].size)
    ring.extend(batch)
    assert ring.bytes == 4 * batch[0].size
    assert positions(ring.after(15, 10)) == [16, 17, 18, 19]
    assert not ring.covers(14)


def test_what_falls_out_is_let_go_at_once() -> None:
    ring, batch = Ring(3, LARGE), encoded(range(1, 5))
    ring.extend(batch[:3])
    held = sys.getrefcount(batch[0])
    ring.extend(batch[3:])
    left = sys.getrefcount(batch[0])
    assert left == held - 1


def test_an_event_larger_than_the_ring_leaves_it_empty_and_the_next_one_fits() -> None:
    small = encoded([2])
    ring = Ring(10, small[0].size)
    ring.extend(encoded([1], title="x" * 1000))
    assert len(ring) == 0
    assert not ring.covers(0)
    ring.extend(small)
    assert positions(ring.after(1, 10)) == [2]


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_after_gives_the_next_events_in_order_up_to_the_limit_wherever_it_begins(limit: int) -> None:
    ring = Ring(40, LARGE)
    ring.extend(encoded(range(1, 61)))
    for position in range(20, 61):
        assert positions(ring.after(position, limit)) == list(range(position + 1, min(60, position + limit) + 1))


def test_clear_forgets_everything_and_begins_anywhere() -> None:
    ring = Ring(5, LARGE)
    ring.extend(encoded(range(1, 6)))
    ring.clear()
    assert not ring.covers(5)
    ring.extend(encoded(range(2, 9)))
    assert len(ring) == 5
    assert positions(ring.after(3, 10)) == [4, 5, 6, 7, 8]
