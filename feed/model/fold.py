"""Folding: text without case and accents, for comparison, with the same result in Python and in SQL.

A migration defines the same functions in SQL. Python's `casefold` and Postgres's `lower` differ by version and locale, so
neither is used beyond ASCII. `tests/postgres/test_fold.py` compares the two sides over every code point.
"""

import re
import unicodedata

# Combining diacritical marks, which Unicode's compatibility decomposition (NFKD) splits off letters.
_MARKS = re.compile("[\u0300-\u036f]")

# One-to-one lower case of the scripts whose capitals NFKD leaves alone, and the Latin letters that carry their
# accent inside: (first capital, last capital, step, distance to its small letter). Mirrored in SQL as two strings.
_RANGES = (
    (0x0391, 0x03A1, 1, 32),  # Greek
    (0x03A3, 0x03AB, 1, 32),
    (0x0400, 0x040F, 1, 80),  # Cyrillic
    (0x0410, 0x042F, 1, 32),
    (0x0460, 0x0480, 2, 1),
    (0x048A, 0x04BE, 2, 1),
    (0x04D0, 0x052E, 2, 1),
    (0x0531, 0x0556, 1, 48),  # Armenian
)
_SINGLE = {
    "Ø": "o", "ø": "o", "Ł": "l", "ł": "l", "Đ": "d", "đ": "d", "Ð": "d", "ð": "d", "ı": "i", "Ħ": "h", "ħ": "h",
    "Ŧ": "t", "ŧ": "t", "ς": "σ",
}  # fmt: skip
DOUBLE = {"ß": "ss", "ẞ": "ss", "Æ": "ae", "æ": "ae", "Œ": "oe", "œ": "oe", "Þ": "th", "þ": "th"}

SINGLE: dict[str, str] = {
    chr(c): chr(c + distance) for first, last, step, distance in _RANGES for c in range(first, last + 1, step)
} | _SINGLE
_ASCII = {chr(c): chr(c + 32) for c in range(ord("A"), ord("Z") + 1)}
_TABLE = str.maketrans(_ASCII | SINGLE | DOUBLE)

# What separates words: everything in ASCII and Latin-1 that is no letter or digit (but `#` and `+`: C#, C++), and the
# punctuation and symbol blocks.
SEPARATORS = (
    "\u0001-\u0022\u0024-\u002a\u002c-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf"
    "\u00d7\u00f7\u2000-\u206f\u2190-\u2bff\u3000-\u3004\u3008-\u3020\u3030\ufe30-\ufe4f"
)
_BETWEEN = re.compile(f"[{SEPARATORS}]+")


def fold(text: str) -> str:
    """Return `text` without case and accents: "Zürich" and "ZURICH" give the same result."""
    if text.isascii():
        return text.lower()
    return _MARKS.sub("", unicodedata.normalize("NFKD", text)).translate(_TABLE)


def words(text: str) -> str:
    """Return the folded words of `text`, one blank before and after each: " berlin germany "; without words, two blanks."""
    return f" {_BETWEEN.sub(' ', fold(text)).strip(' ')} "
