"""The rates: each limited thing has its setting, and none shares the memory of another."""

from typing import get_args

import pytest

from feed.errors import ConfigurationError
from feed.limits import rates as module
from feed.limits.rates import Limit, Rates
from feed.settings.settings import load_settings
from tests.clock import Clock


def rates(clock: Clock, **settings: object) -> Rates:
    """The rates of a process with these settings."""
    return Rates(load_settings(**settings).limits, clock)


@pytest.mark.parametrize("name", get_args(Limit))
def test_each_limit_has_the_rate_of_its_setting(name: Limit) -> None:
    clock = Clock()
    made = rates(clock, **{f"{name}_rate": "3/minute"})
    assert [made.hit(name, "a") for _ in range(3)] == [0.0] * 3
    assert made.wait(name, "a") == made.hit(name, "a") == pytest.approx(20, abs=1e-3)
    for other in get_args(Limit):
        assert other == name or made.hit(other, "a") == 0.0
    clock.now += made.wait(name, "a")
    assert made.hit(name, "a") == 0.0


@pytest.mark.parametrize("name", get_args(Limit))
def test_a_bad_rate_is_refused_with_the_name_of_its_setting(name: Limit) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name}_rate: 'often' is no rate"):
        rates(Clock(), **{f"{name}_rate": "often"})


def test_a_flood_at_one_limit_makes_no_other_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CLIENTS", 10)
    made = rates(Clock(), read_rate="1/hour", denied_rate="1/hour")
    assert made.hit("denied", "guesser") == made.hit("read", "reader") == 0.0
    for number in range(1_000):
        made.hit("read", f"address {number}")
    assert made.wait("read", "reader") == 0.0
    assert made.wait("denied", "guesser") > 0
