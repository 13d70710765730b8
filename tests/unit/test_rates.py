"""Rates: what is allowed, when to come back, and how much is remembered of whom."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feed.errors import ConfigurationError
from feed.limits import rates as module
from feed.limits.rates import Rates
from feed.limits.windows import Windows
from feed.settings.settings import load_settings


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def made(clock: Clock, **settings: object) -> Rates:
    return Rates(load_settings(**settings).limits, clock)


def test_so_many_are_allowed_and_the_next_is_told_when_to_come_back() -> None:
    clock = Clock()
    rates = made(clock, read_rate="3/minute")
    assert [rates.hit("read", "a") for _ in range(3)] == [0.0] * 3
    assert 0 < rates.wait("read", "a") == rates.hit("read", "a") <= 60.1
    assert rates.hit("read", "b") == rates.hit("write", "a") == 0.0  # others, and other limits
    clock.now += rates.wait("read", "a")
    assert rates.wait("read", "a") == rates.hit("read", "a") == 0.0


def test_asking_counts_nothing() -> None:
    rates = made(Clock(), denied_rate="1/minute")
    assert [rates.wait("denied", "a") for _ in range(5)] == [0.0] * 5
    assert rates.hit("denied", "a") == 0.0


def test_what_is_refused_does_not_prolong_the_wait() -> None:
    clock = Clock()
    rates = made(clock, stream_rate="2/minute")
    rates.hit("stream", "a"), rates.hit("stream", "a")
    due = clock.now + rates.hit("stream", "a")
    while clock.now < due:
        assert rates.hit("stream", "a") > 0
        clock.now += 1
    assert rates.hit("stream", "a") == 0.0


@given(
    st.integers(1, 20), st.integers(1, 120), st.lists(st.floats(0, 90), max_size=60), st.floats(0, 1e9)
)  # fmt: skip
def test_who_comes_back_when_told_is_let_in_and_never_much_over_the_rate(
    most: int, seconds: int, pauses: list[float], began: float
) -> None:
    clock = Clock(began)
    rates = made(clock, read_rate=f"{most}/{seconds} seconds")
    allowed = []
    for pause in pauses:
        clock.now += pause
        wait = rates.hit("read", "a")
        if wait:
            assert wait <= 2 * seconds + 1
            clock.now += wait + 0.01
            assert rates.hit("read", "a") == 0.0
        allowed.append(clock.now)
    for at in allowed:
        # A sliding counter takes the hits of the window before as spread evenly: at worst twice as many come together.
        assert sum(at - seconds < one <= at for one in allowed) <= 2 * most


def test_what_nobody_uses_is_forgotten_while_others_come() -> None:
    clock = Clock()
    rates = made(clock, read_rate="5/second")
    for number in range(1_000):
        rates.hit("read", f"address {number}")
    assert len(rates) == 1_000
    clock.now += 10
    for number in range(600):
        rates.hit("read", f"other {number}")
    assert len(rates) == 600


def test_over_the_bound_the_one_used_longest_ago_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 10)
    clock = Clock()
    rates = made(clock, read_rate="1/hour")
    assert rates.hit("read", "persistent") == 0.0
    for number in range(1_000):
        assert rates.hit("read", "persistent") > 0  # which is a use, too
        rates.hit("read", f"address {number}")
        assert len(rates) <= 10


def test_no_thread_is_needed() -> None:
    before = threading.active_count()
    rates = made(Clock())
    for number in range(100):
        rates.hit("read", str(number))
    assert threading.active_count() == before


def test_a_key_can_be_forgotten_and_all_can() -> None:
    windows = Windows(10, Clock())
    assert windows.acquire_sliding_window_entry("a", 1, 60)
    assert not windows.acquire_sliding_window_entry("a", 1, 60)
    windows.clear_sliding_window("a", 60)
    assert windows.acquire_sliding_window_entry("a", 1, 60)
    assert windows.get("a") == 1
    assert windows.reset() == 1
    assert windows.check()
    assert len(windows) == 0


@pytest.mark.parametrize(
    "text", ["", "many", "10", "/minute", "0/minute", "-1/minute", "10/fortnight", "5/0 minutes", "1/s; 2/m"]
)
def test_a_bad_rate_is_refused_with_the_name_of_its_setting_and_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^denied_rate: .*FEED_DENIED_RATE=100/minute"):
        made(Clock(), denied_rate=text)


@pytest.mark.parametrize("text", ["10/minute", "10 per minute", "10/2 seconds", "10 / 5minutes", "10/HOUR", "1/days"])
def test_rates_are_written_as_people_write_them(text: str) -> None:
    assert made(Clock(), read_rate=text).hit("read", "a") == 0.0
