"""Lexemes: what the search index (0007_search.sql) holds of a posting, and what a filter asks of it.

Both sides are made here, of the words and values that `feed.model.filter` compares. A posting that a filter matches always
has the lexemes that the filter asks for; the converse need not hold, so whoever uses the index checks what it finds.
The first character of a lexeme says what it is:

- `1` and `3`: the first character, and the first three, of a word that `q` searches; `w`: a whole word of four or more;
- `l`: a word of the location; `L`: two words of the location that follow each other;
- `c` `k` `p` `e` `s` `t`: company, country, workplace, employment type, seniority and a tag, each whole;
- `m`: the currency; `$`: a currency and a step of `_STEPS` that the yearly pay reaches;
- `g`: a cell of a grid over the Earth, which begins with the number of its size in `_CELLS`.
"""

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from feed.model.filter import EARTH_RADIUS, EQUALITY, Filter, Near, Terms

_PREFIX = {"company": "c", "country": "k", "workplace": "p", "employment_type": "e", "seniority": "s", "tag": "t"}
_BEGINNING = ":*"
"""What follows a lexeme in a query that asks for all lexemes that begin with it."""
_LONGEST = 40
"""Characters of a word or value that go into a lexeme; a longer one is cut, on both sides."""
_SHORT = 3
"""Beginnings of words up to this length have lexemes of their own: to gather all words that begin with `s` takes long."""
_STEPS = [2.0 ** (step / 2) for step in range(26, 44)]
"""Steps of yearly pay, from 8,192 to 3 million, each 1.4 times the one before. A posting has a lexeme for each step that
its pay reaches, and a filter asks for the highest one below its minimum."""
_CELLS = (0.1, 0.5, 3.0, 20.0)
"""Sizes of the grid's cells, in degrees of latitude and longitude."""
_FEW_CELLS = 50
"""Cells that a circle may be covered by; one that needs more, of 4,000 km or so, is not looked for by its cells."""


def lexemes_of(job: Mapping[str, Any], terms: Terms) -> str:
    """Return the lexemes of a posting, with its terms, as a text that Postgres reads as a `tsvector`."""
    found: set[str] = set()
    for name in EQUALITY:
        prefix = _PREFIX[name]
        for value in terms.values(name):
            found.add(prefix + value[:_LONGEST])
    for word in terms.text.split(" "):
        if word:
            found.update(("1" + word[:1], "3" + word[:3]))
            if len(word) > _SHORT:
                found.add("w" + word[:_LONGEST])
    place = terms.location.strip(" ")
    if place:
        found.update(_place(place))
    if terms.currency is not None:
        found.add("m" + terms.currency)
        if terms.pay is not None:
            found.update(f"${terms.currency}{step}" for step in range(bisect_right(_STEPS, terms.pay)))
    latitude, longitude = job["latitude"], job["longitude"]
    if latitude is not None and longitude is not None:
        for size, degrees in enumerate(_CELLS):
            found.add(_cell(size, math.floor(latitude / degrees), math.floor(longitude / degrees)))
    return " ".join(map(_quoted, found))


def query_of(wanted: Filter, *, cells: bool = True) -> list[str]:
    """Return what a filter asks of the lexemes, as parts of a `tsquery` that are to be joined by `&`.

    An empty list asks for nothing. Without `cells`, it asks for no place on the Earth.
    """
    asked = list(_asked(wanted))
    if wanted.near is not None and cells and (covering := _covering(wanted.near)):
        asked.append(_any(covering))
    if wanted.within is not None:
        asked += query_of(wanted.within, cells=cells)
    return asked


def quick_query_of(wanted: Filter) -> list[str]:
    """Return what `query_of` does, but of a word's beginning ask for the first three characters, or the first one, only.

    For a lexeme's beginning, Postgres gathers the postings of all lexemes that begin so before it looks at anything else.
    """
    asked = [part for part in query_of(wanted) if not part.endswith(_BEGINNING)]
    one: Filter | None = wanted
    while one is not None:
        words = (beginning.strip(" ") for beginning in one.q)
        asked += [
            _quoted(f"{_SHORT}{word[:_SHORT]}" if len(word) > _SHORT else f"1{word[:1]}") for word in words if word
        ]
        one = one.within
    return asked


def _asked(wanted: Filter) -> Iterator[str]:
    for name in EQUALITY:
        values = getattr(wanted, name)
        if values:
            yield _any(_PREFIX[name] + value[:_LONGEST] for value in values)
    if wanted.location:
        yield "(" + " | ".join("(" + " & ".join(map(_quoted, _phrase(part))) + ")" for part in wanted.location) + ")"
    if wanted.currency:
        reached = -1 if wanted.salary_min is None else bisect_right(_STEPS, wanted.salary_min) - 1
        yield _any(f"m{code}" if reached < 0 else f"${code}{reached}" for code in wanted.currency)
    for beginning in wanted.q:
        word = beginning.strip(" ")
        if len(word) in (1, _SHORT):
            yield _quoted(f"{len(word)}{word}")
        else:
            yield _quoted((f"{_SHORT}" if len(word) < _SHORT else "w") + word[:_LONGEST]) + _BEGINNING


def _phrase(part: str) -> list[str]:
    words = part.strip(" ").split(" ")
    return ["l" + words[0][:_LONGEST]] if len(words) == 1 else [*_pairs(words)]


def _place(place: str) -> Iterator[str]:
    words = place.split(" ")
    for word in words:
        yield "l" + word[:_LONGEST]
    yield from _pairs(words)


def _pairs(words: list[str]) -> Iterator[str]:
    for one, next in itertools.pairwise(words):
        yield f"L{one[:_LONGEST]} {next[:_LONGEST]}"


def box_of(near: Near) -> tuple[float, float, float, float]:
    """Return the southern, northern, western and eastern bound of a circle in degrees, rather too wide than too narrow.

    West is less than -180, or east more than 180, where the circle crosses that meridian. Around a pole, all longitudes.
    """
    reach = math.degrees(near.radius_km / EARTH_RADIUS) + 1e-6
    south, north = near.latitude - reach, near.latitude + reach
    if south <= -90 or north >= 90:
        return max(south, -90.0), min(north, 90.0), -180.0, 180.0
    across = (
        math.degrees(math.asin(min(1.0, math.sin(math.radians(reach)) / math.cos(math.radians(near.latitude))))) + 1e-6
    )
    return south, north, near.longitude - across, near.longitude + across


def _covering(near: Near) -> list[str]:
    """Return cells that cover a circle, of the smallest size that needs few; an empty list where no size does."""
    south, north, west, east = box_of(near)
    for size, degrees in enumerate(_CELLS):  # noqa: B007
        rows = range(math.floor(south / degrees), math.floor(north / degrees) + 1)
        first, last = math.floor(west / degrees), math.floor(east / degrees)
        if len(rows) * (last - first + 1) <= _FEW_CELLS:
            break
    else:
        return []
    # Longitudes are taken as they are given, -180 to 180, both included. Beyond that meridian, a cell more on either side
    # makes up for what division rounds.
    lowest, highest, around = math.floor(-180 / degrees), math.floor(180 / degrees), round(360 / degrees)
    columns = {*range(first, last + 1)}
    for shift in (-around, around):
        columns.update(range(first + shift - 1, last + shift + 2))
    return [_cell(size, row, column) for row in rows for column in sorted(columns) if lowest <= column <= highest]


def _cell(size: int, row: int, column: int) -> str:
    return f"g{size}{row},{column}"


def _any(lexemes: Iterable[str]) -> str:
    return "(" + " | ".join(map(_quoted, lexemes)) + ")"


def _quoted(lexeme: str) -> str:
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"
