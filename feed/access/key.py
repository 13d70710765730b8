"""API keys as text, `feedkey_<id>_<secret><checksum>`: secret scanners recognise them, and a typo costs no look-up."""

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM = re.compile(r"feedkey_([0-9A-Za-z]{10})_([0-9A-Za-z]{32})([0-9A-Za-z]{6})", re.ASCII)

PREFIX = "feedkey_"


@dataclass(frozen=True, slots=True)
class Key:
    """A well-formed key. Only the database knows whether it exists and is in force."""

    id: str
    text: str

    def __repr__(self) -> str:
        return f"Key({self.id})"

    @property
    def digest(self) -> bytes:
        """The digest that the database keeps. One round of SHA-256 is enough for a secret of 190 random bits."""
        return hashlib.sha256(self.text.encode()).digest()


def new_key() -> Key:
    """Return a new random key."""
    identity, secret = _random(10), _random(32)
    return Key(identity, f"{PREFIX}{identity}_{secret}{_checksum(identity + secret)}")


def parse_key(text: str) -> Key | None:
    """Return the key that `text` spells; None if the form or the checksum is wrong."""
    found = _FORM.fullmatch(text)
    if found is None or found[3] != _checksum(found[1] + found[2]):
        return None
    return Key(found[1], text)


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(text: str) -> str:
    rest = zlib.crc32(text.encode())
    digits = ""
    for _ in range(6):
        rest, digit = divmod(rest, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
