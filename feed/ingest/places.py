"""Places: how a source's places become one text, and their countries one English name."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from babel import Locale

_OTHER_NAMES: Final = {
    "usa": "US",
    "u.s.": "US",
    "u.s.a.": "US",
    "uk": "GB",
    "u.k.": "GB",
    "deutschland": "DE",
    "uae": "AE",
}
_AMBIGUOUS: Final = frozenset({"georgia"})
"""Names of countries that are more often the name of something else in a list of places."""
_BETWEEN: Final = re.compile(r"\s*[;|]\s*|\s+or\s+|\s+/\s+")


@lru_cache(maxsize=1)
def _names() -> Mapping[str, str]:
    """Return the English names of countries by their code in ISO 3166-1 (two letters)."""
    territories = Locale("en").territories
    return MappingProxyType({code: name for code, name in territories.items() if re.fullmatch("[A-Z]{2}", code)})


@lru_cache(maxsize=1)
def _known() -> Mapping[str, str]:
    """Return the English names of countries by what they are called, in small letters."""
    names = _names()
    others = {name: names[code] for name, code in _OTHER_NAMES.items()}
    return MappingProxyType({name.casefold(): name for name in names.values()} | others)


def country(value: str | None) -> str | None:
    """Return the English name of a country from its code or name; a name that is not known stays as it is."""
    if value is None:
        return None
    return _names().get(value.upper()) or _known().get(value.casefold()) or value


def country_in(place: str | None) -> str | None:
    """Return the country that every place in a text such as `Berlin, Germany` ends with; None where it is not clear."""
    found = {_country_at_end(one) for one in split(place)}
    return found.pop() if len(found) == 1 else None


def split(places: str | None) -> list[str]:
    """Return the places in a text that separates them by `;`, `|`, `/` or the word "or"."""
    return [one for one in _BETWEEN.split(places or "") if one]


def joined(places: Iterable[str | None]) -> str | None:
    """Return places as one text, each of them once."""
    return "; ".join(dict.fromkeys(place for place in places if place)) or None


def address(*parts: str | None) -> str | None:
    """Return the parts of one address, from the smallest to the largest, as one text."""
    return ", ".join(dict.fromkeys(part for part in parts if part)) or None


def only(countries: Iterable[str | None]) -> str | None:
    """Return the one country that all places are in, of those that tell; None where there are several."""
    found = set(filter(None, countries))
    return found.pop() if len(found) == 1 else None


def _country_at_end(place: str) -> str | None:
    end = place.rsplit(",", 1)[-1].strip().casefold()
    return None if end in _AMBIGUOUS else _known().get(end)
