"""An API key as text, `feedkey_<id>_<secret><checksum>`: scanners can recognise it, a typo is seen without a look-up."""

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
    """A key that is well-formed; whether it is any good the database says."""

    id: str
    text: str

    def __repr__(self) -> str:
        return f"Key({self.id})"

    @property
    def digest(self) -> bytes:
        """What the database keeps. One round of SHA-256: the secret is 190 random bits."""
        return hashlib.sha256(self.text.encode()).digest()


def new_key() -> Key:
    """A key that nobody has."""
    identity, secret = _random(10), _random(32)
    return Key(identity, f"{PREFIX}{identity}_{secret}{_checksum(identity + secret)}")


def parse_key(text: str) -> Key | None:
    """The key that `text` is; None where it cannot be one of ours."""
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
