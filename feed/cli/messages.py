"""What a command says to the person at the terminal: one line on stderr, without anything that steers the terminal."""

import sys
import unicodedata


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
