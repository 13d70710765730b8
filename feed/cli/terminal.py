"""What every command does the same at the terminal: exit codes, lines on stderr, text that cannot harm it."""

import sys
import unicodedata
from enum import IntEnum

DEFAULT_URL = "http://127.0.0.1:8000"


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3


def say(text: str) -> None:
    """Print one line for the person at the terminal, on stderr."""
    print(f"feed: {clean(text)}", file=sys.stderr, flush=True)


def clean(text: str) -> str:
    """Return `text` as one line without what steers a terminal: control characters, changes of direction."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else _stand_in(c) for c in text)


def _stand_in(c: str) -> str:
    if c.isspace():
        return " "
    return c if c == "\u200d" else "\ufffd" if unicodedata.category(c) == "Cc" else ""
