"""Settings that are wrong are refused in plain words."""

import pytest

from feed.errors import ConfigurationError
from feed.settings.settings import load_settings


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("FEED_RETENTON", "unknown setting FEED_RETENTON; did you mean FEED_RETENTION?"),
        ("FEED_XYZZY", "unknown setting FEED_XYZZY. Unset it, or correct its name."),
    ],
)
def test_an_unknown_setting_is_named_with_the_one_that_was_meant(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    assert str(refused.value) == said


def test_a_value_that_cannot_be_is_refused_with_the_setting_it_is_of() -> None:
    with pytest.raises(ConfigurationError, match="the setting FEED_PORT is wrong: Input should be less than"):
        load_settings(port=70_000)


def test_settings_that_do_not_go_together_are_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(retry_min=5, retry_max=2)
    assert str(refused.value) == "FEED_RETRY_MIN must not be over FEED_RETRY_MAX"


def test_the_key_of_a_client_is_not_taken_for_the_key_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    # FEED_KEY is what commands send; the service reads FEED_JWT_KEY, whose field is called `key`.
    monkeypatch.setenv("FEED_KEY", "feedkey_x")
    assert load_settings().jwt.key is None
