"""Salaries: what sources give in fields of their own, and one strict form of text in a field that is labelled so."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from feed.ingest.record import line, number

_CURRENCY: Final = re.compile("[A-Z]{3}")
_LARGEST: Final = Decimal(999_999_999_999)
_CENT: Final = Decimal("0.01")
_PERIODS: Final = {
    word: period
    for period, words in {
        "year": "year yearly annual annually annum peryear peryearsalary 1year yr pa",
        "month": "month monthly permonth permonthsalary 1month mo",
        "week": "week weekly perweek perweeksalary 1week",
        "day": "day daily perday perdaywage 1day",
        "hour": "hour hourly perhour perhourwage 1hour hr",
    }.items()
    for word in words.split()
}
_SIGNS: Final = {"US$": "USD", "€": "EUR", "£": "GBP", "₹": "INR", "A$": "AUD", "C$": "CAD"}
_AMOUNT: Final = r"(\d{1,3}(?:,\d{3})+|\d{1,9})(?:\.\d{2})? ?([kK])?"
_SIGN: Final = r"([A-Z]{3}|US\$|A\$|C\$|€|£|₹)"
_LABELLED: Final = re.compile(
    rf"{_SIGN} ?{_AMOUNT}(?: ?(?:-|–|—|to) ?{_SIGN}? ?{_AMOUNT})?(?: ?(?:/|per|a|an)? ?([a-z]+))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Pay:
    """One range of pay, as a source gives it: amounts in units of `currency` per `period`, unchecked."""

    low: object
    high: object
    currency: object
    period: object = None


def salary(ranges: Iterable[Pay]) -> dict[str, Any]:
    """Return the fields of a posting that tell the salary: the lowest and the highest amount of all ranges.

    Ranges in other units than the first good one are left out, as are amounts of zero, which sources send for unknown,
    and ranges that have no currency or end below where they begin. Returns an empty dictionary where nothing is left.
    """
    unit: tuple[str, str | None] | None = None
    lows: list[Decimal] = []
    highs: list[Decimal] = []
    for pay in ranges:
        code = (line(pay.currency) or "").upper()
        low, high = _amount(pay.low), _amount(pay.high)
        if not _CURRENCY.fullmatch(code) or (low is None and high is None):
            continue
        if low is not None and high is not None and low > high:
            continue
        unit = unit or (code, period(pay.period))
        if unit == (code, period(pay.period)):
            lows += [low] if low is not None else []
            highs += [high] if high is not None else []
    if unit is None:
        return {}
    low, high = min(lows, default=None), max(highs, default=None)
    if low is not None and high is not None and low > high:  # one range that only begins, one that only ends
        high = None
    return {"salary_min": low, "salary_max": high, "currency": unit[0], "salary_period": unit[1]}


def labelled(value: object) -> dict[str, Any]:
    """Return the same fields from a text in a field for salaries, such as `USD 70,000 - 90,000 per year` or `€70k–90k`.

    The whole text must be of this form, with a currency that cannot be mistaken (`$` alone can).
    """
    text = line(value) or ""
    found = _LABELLED.fullmatch(text) if len(text) <= 100 else None
    if found is None:
        return {}
    sign, low, low_k, sign_again, high, high_k, word = found.groups()
    if (word and period(word) is None) or (sign_again or sign) != sign:
        return {}
    thousands = Decimal(1000)
    first = Decimal(low.replace(",", "")) * (thousands if low_k or (high_k and "," not in low) else 1)
    last = Decimal(high.replace(",", "")) * (thousands if high_k else 1) if high else None
    return salary([Pay(first, last, _SIGNS.get(sign, sign), word)])


def period(value: object) -> str | None:
    """Return the period that a source's word means: year, month, week, day or hour."""
    return _PERIODS.get(re.sub(r"[^a-z0-9]", "", (line(value) or "").lower()))


def _amount(value: object) -> Decimal | None:
    found = number(value)
    if found is None or not 0 <= found <= _LARGEST:
        return None
    return found.quantize(_CENT, ROUND_HALF_UP) or None  # zero stands for unknown
