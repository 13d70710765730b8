"""The rate limit: what each client is allowed, and how much is remembered of whom."""

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feed.errors import ConfigurationError
from feed.limits.rate_limit import Rate, RateLimit
from tests.clock import Clock


def limit(text: str, clock: Clock, max_clients: int = 100_000) -> RateLimit:
    """A limit of the rate that a setting writes as `text`."""
    return RateLimit(Rate.parse("read_rate", text), max_clients, clock)


def test_a_burst_of_the_amount_is_allowed_and_then_one_at_a_time_evenly() -> None:
    clock = Clock()
    reads = limit("3/minute", clock)
    assert [reads.hit("a") for _ in range(3)] == [0.0] * 3
    assert reads.wait("a") == reads.hit("a") == pytest.approx(20, abs=1e-3)
    clock.now += reads.wait("a")
    assert reads.hit("a") == 0.0
    assert reads.hit("a") == pytest.approx(20, abs=1e-3)


def test_each_client_has_a_limit_of_its_own() -> None:
    reads = limit("1/minute", Clock())
    assert reads.hit("a") == 0.0
    assert reads.hit("a") > 0
    assert reads.hit("b") == 0.0


def test_asking_for_the_wait_counts_nothing_and_remembers_nobody() -> None:
    reads = limit("1/minute", Clock())
    assert [reads.wait("a") for _ in range(5)] == [0.0] * 5
    assert len(reads) == 0
    assert reads.hit("a") == 0.0


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 120), st.lists(st.floats(0, 90), max_size=60), st.floats(0, 1e7))
def test_who_comes_back_when_told_is_let_in(amount: int, seconds: int, pauses: list[float], began: float) -> None:
    clock = Clock(began)
    reads = limit(f"{amount}/{seconds} seconds", clock)
    allowed = []
    for pause in pauses:
        clock.now += pause
        wait = reads.hit("a")
        if wait:
            assert wait <= seconds / amount + 0.001
            clock.now += wait
            assert reads.hit("a") == 0.0
        allowed.append(clock.now)
    for at in allowed:
        assert sum(at - seconds < one <= at for one in allowed) <= 2 * amount


def test_clients_whose_buckets_are_full_again_are_forgotten_while_others_come() -> None:
    clock = Clock()
    reads = limit("5/second", clock)
    for number in range(1_000):
        reads.hit(f"address {number}")
    assert len(reads) == 1_000
    clock.now += 10
    for number in range(600):
        reads.hit(f"other {number}")
    assert len(reads) == 600


def test_a_flood_of_addresses_takes_bounded_memory() -> None:
    reads = limit("1/hour", Clock(), max_clients=10)
    for number in range(1_000):
        reads.hit(f"address {number}")
        assert len(reads) <= 10


def test_at_the_bound_the_least_recently_used_is_forgotten_first() -> None:
    reads = limit("1/hour", Clock(), max_clients=10)
    assert reads.hit("persistent") == 0.0
    for number in range(1_000):
        assert reads.hit("persistent") > 0  # a refused attempt is a use, too
        reads.hit(f"address {number}")


def test_at_the_bound_full_buckets_are_forgotten_before_one_that_is_not() -> None:
    clock = Clock()
    reads = limit("60/minute", clock, max_clients=10)
    while reads.hit("offender") == 0.0:
        pass
    for number in range(100):  # the bucket of each of them is full again after a second
        clock.now += 0.2
        reads.hit(f"address {number}")
        assert len(reads) <= 10
    allowed = 0
    while reads.hit("offender") == 0.0:
        allowed += 1
    assert allowed == 20  # what came in 20 seconds, and not the 60 of a client that is not remembered


def test_no_thread_is_started() -> None:
    before = threading.active_count()
    reads = limit("5/second", Clock())
    for number in range(100):
        reads.hit(str(number))
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "text", ["", "many", "10", "/minute", "0/minute", "-1/minute", "10/fortnight", "5/0 minutes", "1/s; 2/m", "9" * 400]
)
def test_a_bad_rate_is_refused_with_the_name_of_its_setting_and_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^denied_rate: .*FEED_DENIED_RATE=100/minute"):
        Rate.parse("denied_rate", text)


@pytest.mark.parametrize(
    ("text", "amount", "seconds"),
    [
        ("10/minute", 10, 60),
        ("10 per minute", 10, 60),
        ("10/2 seconds", 10, 2),
        (" 10 / 5minutes ", 10, 300),
        ("10/HOUR", 10, 3_600),
        ("1/days", 1, 86_400),
        ("5/month", 5, 2_592_000),
        ("5 per 2 years", 5, 63_072_000),
    ],
)
def test_rates_are_written_as_people_write_them(text: str, amount: int, seconds: int) -> None:
    assert Rate.parse("read_rate", text) == Rate(amount, seconds)
