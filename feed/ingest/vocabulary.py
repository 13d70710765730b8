"""The words for work that sources use, as ours: employment types, workplaces and seniority."""

import re
from collections.abc import Iterable
from typing import Final

_EMPLOYMENT: Final = {
    word: ours
    for ours, words in {
        "full-time": "fulltime fulltimepermanent fulltimeemployee permanentfulltime",
        "part-time": "parttime parttimepermanent permanentparttime",
        "contract": "contract contractor freelance freelancer fulltimefixedterm parttimefixedterm fixedterm",
        "temporary": "temporary temp",
        "internship": "intern internship trainee",
        "apprenticeship": "apprentice apprenticeship",
        "volunteer": "volunteer",
    }.items()
    for word in words.split()
}
_WORKPLACES: Final = {
    "onsite": "onsite", "office": "onsite", "inoffice": "onsite", "hybrid": "hybrid", "remote": "remote",
    "fullyremote": "remote", "telecommute": "remote",
}  # fmt: skip
_SENIORITY: Final = {
    "entrylevel": "junior", "juniorlevel": "junior", "midlevel": "mid", "seniorlevel": "senior", "leadlevel": "lead",
}  # fmt: skip
_SAYS_NOTHING: Final = frozenset({"other", "notapplicable", "unspecified", "unknown", "none", "any"})


def employment_type(value: str | None) -> str | None:
    """Return the employment type that a source's word means, such as `full-time`; another word stays as it is."""
    return _ours(value, _EMPLOYMENT)


def workplace(value: str | None) -> str | None:
    """Return onsite, hybrid or remote; None for any other word."""
    return _WORKPLACES.get(_letters(value))


def workplace_of(places: Iterable[str]) -> str | None:
    """Return remote where each of the places begins with that word; None otherwise."""
    words = [_letters(place) for place in places]
    return "remote" if words and all(word.startswith("remote") for word in words) else None


def seniority(value: str | None) -> str | None:
    """Return the seniority that a source's word means, such as `junior`; another word stays, in small letters."""
    found = _ours(value, _SENIORITY)
    return found.lower() if found else None


def _ours(value: str | None, words: dict[str, str]) -> str | None:
    letters = _letters(value)
    return None if letters in _SAYS_NOTHING else words.get(letters, value)


def _letters(value: str | None) -> str:
    return re.sub(r"[^a-z]", "", (value or "").lower())
