"""A key as text: what it looks like, that a slip is seen, and that its secret stays where it is."""

import re
import string

from hypothesis import given
from hypothesis import strategies as st

from feed.access.key import PREFIX, new_key, parse_key

LETTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase


def test_a_key_looks_as_scanners_expect_and_reads_back() -> None:
    key = new_key()
    assert re.fullmatch(r"feedkey_[0-9A-Za-z]{10}_[0-9A-Za-z]{38}", key.text)
    assert key.text.startswith(f"{PREFIX}{key.id}_")
    assert parse_key(key.text) == key


def test_no_two_keys_are_the_same() -> None:
    keys = [new_key() for _ in range(200)]
    assert len({key.id for key in keys}) == len({key.text[-38:] for key in keys}) == 200


@given(st.integers(0, 48), st.sampled_from(LETTERS))
def test_one_wrong_letter_is_seen(place: int, letter: str) -> None:
    text = new_key().text
    place += len(PREFIX)
    if text[place] in ("_", letter):
        return
    assert parse_key(text[:place] + letter + text[place + 1 :]) is None


@given(st.integers(0, 36))
def test_two_letters_in_the_wrong_order_are_seen(place: int) -> None:
    text = new_key().text
    place += len(PREFIX) + 11
    one, other = text[place : place + 2]
    if one != other:
        assert parse_key(f"{text[:place]}{other}{one}{text[place + 2 :]}") is None


def test_what_is_not_a_key_is_none() -> None:
    text = new_key().text
    for other in (
        "", PREFIX, text[:-1], f"{text}0", f" {text}", f"{text}\n", text.replace("feedkey", "FEEDKEY"),
        text.replace("_", "-"), text.removeprefix(PREFIX), f"{text[:20]}ä{text[21:]}", f"{text[:20]}\x00{text[21:]}",
        f"{text[:20]}\u0663{text[21:]}",
    ):  # fmt: skip
        assert parse_key(other) is None, other


@given(st.text(max_size=80))
def test_no_text_is_too_strange_to_be_refused(text: str) -> None:
    assert parse_key(text) is None
    assert parse_key(PREFIX + text) is None


def test_neither_its_digest_nor_its_description_shows_the_secret() -> None:
    key, other = new_key(), new_key()
    secret = key.text[-38:]
    assert len(key.digest) == 32
    assert key.digest != other.digest
    assert secret.encode() not in key.digest
    for shown in (repr(key), str(key), f"{key!r}", f"{[key]}"):
        assert key.id in shown
        assert secret not in shown
