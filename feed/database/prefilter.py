"""The prefilter: an SQL condition that leaves out the events of the log which a filter cannot want.

It must be true wherever `EncodedEvent.frame_for` has a frame, and may be true elsewhere: what is read is matched in memory.
So it may use what Postgres answers in a fraction of a microsecond. `lower` under the collation "C" folds ASCII as
feed/model/fold.py does; a text with any other letter passes, and so do tags whose JSON has an escape.
"""

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from feed.model.event import BACKFILL, UNSENT, Kind
from feed.model.filter import EARTH_RADIUS, EQUALITY, Filter
from feed.model.posting import FIELDS, FILTERED

_KM_PER_DEGREE = math.radians(EARTH_RADIUS)
"""Kilometres between two parallels that are a degree apart."""
_SLACK = Decimal("0.999999")
"""What a bound is loosened by, because sums are rounded differently here and in memory."""

_BETWEEN = "[^a-z0-9#+]"
"""What separates words of folded ASCII, as in feed/model/fold.py."""
_BEGIN = f"(^|{_BETWEEN})"


def prefilter(wanted: Filter, arguments: list[Any]) -> str:
    """Return the condition over `log l`, without subqueries; its arguments are appended to `arguments`."""
    kinds = [kind for kind in Kind if kind not in UNSENT and wanted.wants(kind)]
    conditions = _Conditions(arguments)
    conditions.add(wanted)
    named = conditions.bind([kind.value for kind in kinds])
    found = [f"l.kind = ANY ({named}::text[])", *conditions.over("l.job", FIELDS)]
    either = " AND ".join(found)
    if Kind.CLOSED in kinds:  # what leaves a filter is told as closed
        before = ["l.was IS NOT NULL", *conditions.over("l.was", FILTERED)]
        either = f"({either}) OR ({' AND '.join(before)})"
    if not wanted.wants_backfill:
        either = f"({either}) AND l.reason IS DISTINCT FROM {conditions.bind(BACKFILL)}::text"
    return either


class _Conditions:
    """Conditions of filters, as templates that are read twice: for a posting as it is and as it was."""

    def __init__(self, arguments: list[Any]) -> None:
        self._arguments = arguments
        self._templates: list[str] = []

    def bind(self, value: Any) -> str:
        self._arguments.append(value)
        return f"${len(self._arguments)}"

    def over(self, array: str, fields: tuple[str, ...]) -> list[str]:
        """Return the conditions over an array of texts in the order of `fields`."""
        places: Mapping[str, str] = {name: f"{array}[{number}]" for number, name in enumerate(fields, 1)}
        return [template.format_map(places) for template in self._templates]

    def add(self, wanted: Filter) -> None:
        """Add the conditions of a filter, and of the one around it."""
        for name in EQUALITY:
            values: tuple[str, ...] = getattr(wanted, name)
            if not values:
                continue
            if name == "tag":
                quoted = [f'%"{_pattern(value)}"%' for value in values]
                self._like("{tags}", "ANY", quoted, [], "OR strpos({tags}, chr(92)) > 0")
            else:
                given = self.bind(list(values))
                self._add(
                    f'lower({{{name}}} COLLATE "C") = ANY ({given}::text[])'
                    f" OR octet_length({{{name}}}) <> length({{{name}}})"
                )
        if wanted.location:
            parts = [part.split() for part in wanted.location]
            self._like("{location}", "ANY", ["%" + "%".join(words) + "%" for words in parts], _whole(parts))
        if wanted.q:
            text = "concat_ws(' ', {title}, {company}, {tags}, {location})"
            beginnings = [beginning.strip() for beginning in wanted.q]
            regexes = [_BEGIN + re.escape(beginning) for beginning in beginnings]
            self._like(text, "ALL", [f"%{one}%" for one in beginnings], regexes, "OR strpos({tags}, chr(92)) > 0")
        if wanted.currency:
            self._add(f"{{currency}} = ANY ({self.bind(list(wanted.currency))}::text[])")
        if wanted.salary_min is not None:
            least = self.bind(Decimal(wanted.salary_min) * _SLACK)
            self._add(
                "coalesce({salary_max}, {salary_min})::numeric * CASE {salary_period} WHEN 'month' THEN 12 "
                f"WHEN 'week' THEN 52 WHEN 'day' THEN 260 WHEN 'hour' THEN 2080 ELSE 1 END >= {least}::numeric"
            )
        if wanted.near is not None:
            # A degree of latitude is the same distance everywhere; what is no latitude passes.
            degrees = Decimal(wanted.near.radius_km / _KM_PER_DEGREE) / _SLACK + Decimal("0.000001")
            centre, reach = self.bind(Decimal(wanted.near.latitude)), self.bind(degrees)
            self._add(
                f"abs({{latitude}}::numeric - {centre}::numeric) <= {reach}::numeric OR abs({{latitude}}::numeric) > 90"
            )
        if wanted.within is not None:
            self.add(wanted.within)

    def _like(self, text: str, operator: str, patterns: list[str], regexes: list[str], otherwise: str = "") -> None:
        """Add the condition that a text has these patterns, or letters beyond ASCII.

        The regular expressions say more exactly what the patterns say, and take longer: they are asked only about what the
        patterns let through.
        """
        folded = f'lower({text} COLLATE "C")'
        found = f"{folded} LIKE {operator} ({self.bind(patterns)}::text[])"
        if regexes:
            found += f" AND {folded} ~ {operator} ({self.bind(regexes)}::text[])"
        self._add(f"({found}) OR octet_length({text}) <> length({text}) {otherwise}")

    def _add(self, condition: str) -> None:
        self._templates.append(f"({condition})")


def _whole(parts: list[list[str]]) -> list[str]:
    """Return regular expressions for whole words that follow each other."""
    return [_BEGIN + f"{_BETWEEN}+".join(map(re.escape, words)) + f"({_BETWEEN}|$)" for words in parts]


def _pattern(text: str) -> str:
    r"""Return a text as a pattern of LIKE, in which `\`, `%` and `_` have meanings."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
