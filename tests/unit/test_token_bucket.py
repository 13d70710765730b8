"""The token bucket: a burst of its capacity, then its rate, and never more than both."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feed.limits.token_bucket import TokenBucket
from tests.clock import Clock

capacities = st.integers(1, 1_000)
rates = st.floats(0.001, 10_000)
begins = st.floats(0, 1e7)


def taken_at_once(bucket: TokenBucket) -> int:
    """How many tokens can be taken without any time passing."""
    count = 0
    while bucket.take():
        count += 1
    return count


def test_a_full_bucket_gives_its_capacity_and_then_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(3, 2, clock)
    assert taken_at_once(bucket) == 3
    clock.now += 0.5
    assert taken_at_once(bucket) == 1
    clock.now += 1
    assert taken_at_once(bucket) == 2


@pytest.mark.parametrize("taken_before", [0, 1, 50, 100])
def test_idle_time_never_fills_it_above_its_capacity(taken_before: int) -> None:
    clock = Clock()
    bucket = TokenBucket(100, 1, clock)
    for _ in range(taken_before):
        assert bucket.take()
    clock.now += 3_600
    assert bucket.is_full
    assert taken_at_once(bucket) == 100


def test_parts_of_a_token_can_be_taken() -> None:
    bucket = TokenBucket(1, 1, Clock())
    assert [bucket.take(0.25) for _ in range(5)] == [True, True, True, True, False]


def test_more_than_the_capacity_can_never_be_taken_and_takes_nothing() -> None:
    clock = Clock()
    bucket = TokenBucket(3, 1, clock)
    assert not bucket.take(4)
    assert bucket.wait(4) == math.inf
    assert bucket.wait(3) == 0.0
    assert taken_at_once(bucket) == 3


def test_a_refused_attempt_takes_nothing_and_does_not_prolong_the_wait() -> None:
    clock = Clock()
    bucket = TokenBucket(1, 0.1, clock)
    assert bucket.take()
    due = clock.now + bucket.wait()
    while clock.now < due:
        assert not bucket.take()
        clock.now += 0.3
    assert bucket.take()


@settings(deadline=None)
@given(capacities, rates, begins, st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50)), max_size=80))
def test_of_any_interval_it_gives_no_more_than_its_capacity_and_its_rate(
    capacity: int, rate: float, begin: float, attempts: list[tuple[float, int]]
) -> None:
    clock = Clock(begin)
    bucket = TokenBucket(capacity, rate, clock)
    taken: list[tuple[float, int]] = []
    for pause, amount in attempts:
        clock.now += pause
        if bucket.take(amount):
            taken.append((clock.now, amount))
    for first, (began, _) in enumerate(taken):
        total = 0
        for at, amount in taken[first:]:
            total += amount
            assert total <= (capacity + rate * (at - began)) * (1 + 1e-9)


@settings(deadline=None)
@given(capacities, rates, begins, st.data())
def test_the_wait_is_exact(capacity: int, rate: float, begin: float, data: st.DataObject) -> None:
    clock = Clock(begin)
    bucket = TokenBucket(capacity, rate, clock)
    bucket.take(data.draw(st.integers(1, capacity)))
    clock.now += data.draw(st.floats(0, 10))
    amount = data.draw(st.integers(1, capacity))
    wait = bucket.wait(amount)
    if wait == 0.0:
        assert bucket.take(amount)
        return
    asked = clock.now
    clock.now = asked + (wait - 2e-6) * 0.999
    assert clock.now <= asked or not bucket.take(amount)
    clock.now = asked + wait
    assert bucket.wait(amount) == 0.0
    assert bucket.take(amount)
