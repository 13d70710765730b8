"""The mapping of foreign JSON records to our postings, as a TOML file declares it.

    [where]                       # optional: records in which all of these hold; the others are skipped
    active = true
    "company.kind" = ["startup", "scale-up"]        # any of these

    [posting]                     # one line a field of ours
    source      = { value = "example" }                                # a constant
    external_id = "id"                                                 # a field of theirs: the path alone
    title       = "job.title"
    company     = { from = "employer.name", default = "unknown" }      # when there is nothing else
    url         = "links[0].href"
    location    = { from = "offices[].name", join = "; " }             # a list to one text
    posted_at   = { from = "created", as = "epoch_ms" }                # milliseconds; "epoch_s": seconds
    workplace   = { from = "mode", as = "lower", values = { "on-site" = "onsite" } }
    tags        = { from = "labels", values = { "internal*" = "" } }

A path is names joined by dots; `[0]` takes an element of a list, `[-1]` the last, `[]` all of them. From left
to right a value goes through `as` (`lower`, `epoch_s`, `epoch_ms`), `values` and `join` or `first = true`;
`default` comes last. In a list each element goes through them. `values` replaces what it lists, the first
match of the table, and leaves the rest alone; a trailing `*` stands for any ending and "" drops the value.
Where nothing is left (a missing field, null, "", an empty list) the posting goes without the field. `tags`
takes a list; every other field one value.
"""

import re
import tomllib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from feed.errors import ConfigurationError, Fault, Invalid
from feed.model.posting import PostingIn

_LISTS = frozenset({"tags"})
_NUMBERS = frozenset({"salary_min", "salary_max", "latitude", "longitude"})
_STEP = re.compile(r"\.([^.\[\]]+)|\[(-?[0-9]{1,6}|)\]")

T = TypeVar("T")
Step = str | int | None
"""A step of a path: a name, a place in a list, or None for every element."""
Condition = tuple[tuple[Step, ...], tuple[object, ...]]
"""A path and the values of which one must stand there."""


class MappingError(ConfigurationError):
    """A mapping file asks for something that cannot be; the text names the file and the key."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Where one field of a posting comes from and what happens to it on the way."""

    path: tuple[Step, ...] = ()
    constant: object = None
    convert: Callable[[Any], object] | None = None
    values: tuple[tuple[str, object], ...] = ()
    join: str | None = None
    first: bool = False
    default: object = None

    def __call__(self, record: dict[str, Any]) -> object:
        """Return what `record` gives for this field; None, "" and [] are nothing. Raises ValueError."""
        found = self.constant if self.constant is not None else _pick(record, self.path)
        if isinstance(found, list):
            elements = dict.fromkeys(out for element in found if _is_some(out := self._one(element)))
            if self.join is not None:
                found = self.join.join(map(_text, elements))
            else:
                found = next(iter(elements), None) if self.first else list(elements)
        elif found is not None:
            found = self._one(found)
        return found if _is_some(found) else self.default

    def _one(self, value: object) -> object:
        """Convert one value, or one element of a list."""
        if not _is_some(value):
            return None
        if isinstance(value, dict | list):
            raise ValueError("is an object or a list inside a list: its path must go further")
        if self.convert is not None:
            value = self.convert(value)
        for pattern, replacement in self.values:
            if _matches(pattern, _text(value)):
                return replacement
        return value


@dataclass(frozen=True, slots=True)
class RecordMap:
    """A mapping that has been read and checked: from one foreign record to one posting."""

    where: tuple[Condition, ...]
    posting: dict[str, Rule]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the mapping in the file at `path`; raises MappingError."""
        try:
            return cls.parse(path.read_text("utf-8"), name=path.name)
        except (OSError, UnicodeDecodeError) as error:
            raise MappingError(f"the mapping {path} cannot be read: {error}") from error

    @classmethod
    def parse(cls, text: str, name: str = "mapping") -> Self:
        """Read a mapping from its TOML `text`; raises MappingError, which calls the file `name`."""
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise MappingError(f"{name}: {error}") from error
        try:
            _check_keys("", tables, ["where", "posting"])
            where = _expect("where", tables.get("where", {}), dict, "a table")
            posting = _expect("posting", tables.get("posting", {}), dict, "a table")
            return cls(_read_where("where", where), _read_posting(posting))
        except ValueError as error:
            raise MappingError(f"{name}: {error}") from error

    def apply(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """Return the posting that `record` maps to, or None when `where` skips it.

        Raises Invalid with a fault for each field (of the posting) that cannot be made.
        """
        if not all(_holds(_pick(record, path), wanted) for path, wanted in self.where):
            return None
        posting: dict[str, Any] = {}
        faults: list[Fault] = []
        for field, rule in self.posting.items():
            try:
                value = _fit(field, rule(record))
            except ValueError as error:
                faults.append(Fault(field, str(error)))
            else:
                if _is_some(value):
                    posting[field] = value
        if faults:
            raise Invalid(faults)
        return posting

    def external_id(self, record: dict[str, Any]) -> str | None:
        """Return the external id of the posting that `record` maps to, or None where there is none or it cannot be made."""
        try:
            return str(_fit("external_id", self.posting["external_id"](record)) or "") or None
        except (KeyError, ValueError):
            return None


def _is_some(value: object) -> bool:
    return value is not None and value != "" and value != []


def _text(value: object) -> str:
    """Return a scalar as JSON spells it, without quotes: `true`, `3`, `text`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _matches(pattern: str, text: str) -> bool:
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern


def _holds(value: object, wanted: tuple[object, ...]) -> bool:
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in wanted)


def _pick(value: Any, path: tuple[Step, ...]) -> Any:
    """Return what stands at `path` in `value`, None where it leads nowhere; `[]` gives a flat list."""
    for place, step in enumerate(path):
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        elif not isinstance(value, list):
            return None
        elif step is None:
            rest = [_pick(element, path[place + 1 :]) for element in value]
            return [one for found in rest for one in (found if isinstance(found, list) else [found])]
        else:
            value = value[step] if -len(value) <= step < len(value) else None
    return value


def _fit(field: str, value: object) -> object:
    """Return `value` as `field` takes it: a list for tags, a text where theirs is a number."""
    if field in _LISTS:
        return value if isinstance(value, list) or not _is_some(value) else [value]
    if isinstance(value, list):
        raise ValueError('is a list: add join = "; " or first = true')
    return value if field in _NUMBERS or value is None else _text(value)


def _lower(value: object) -> str:
    return _text(value).lower()


def _time(value: object, *, per_second: int, unit: str) -> str:
    """Return a count since 1970 as RFC 3339 in UTC."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise TypeError
        at = datetime.fromtimestamp(float(value) / per_second, UTC)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        raise ValueError(f"{value!r} is not a time in {unit} since 1970") from error
    return at.isoformat().replace("+00:00", "Z")


_CONVERSIONS: dict[str, Callable[[Any], object]] = {
    "lower": _lower,
    "epoch_s": partial(_time, per_second=1, unit="seconds"),
    "epoch_ms": partial(_time, per_second=1000, unit="milliseconds"),
}


def _read_posting(table: dict[str, Any]) -> dict[str, Rule]:
    fields = PostingIn.model_fields
    _check_keys("posting", table, fields)
    for name, field in fields.items():
        if field.is_required() and name not in table:
            raise ValueError(f"posting.{name}: is missing; every posting needs it")
    return {name: _read_rule(f"posting.{name}", given) for name, given in table.items()}


def _read_rule(key: str, given: object) -> Rule:
    """Read one line of [posting]; `key` is where it stands in the file."""
    if isinstance(given, str):
        return Rule(_read_path(key, given))
    rule = _expect(key, given, dict, 'a path ("a.b") or a table ({ from = "a.b", ... })')
    if "value" in rule:
        _check_keys(key, rule, ["value"])
        return Rule(constant=_read_constant(f"{key}.value", rule["value"]))
    _check_keys(key, rule, ["from", "as", "values", "join", "first", "default"])
    if "from" not in rule:
        raise ValueError(f"{key}: needs from (a path of theirs) or value (a constant)")
    first = _expect(f"{key}.first", rule.get("first", False), bool, "true or false")
    if first and "join" in rule:
        raise ValueError(f"{key}: give join or first, not both")
    convert = rule.get("as")
    if convert is not None and convert not in list(_CONVERSIONS):
        raise ValueError(f"{key}.as: {convert!r} is unknown; use one of: {', '.join(_CONVERSIONS)}")
    values = _expect(f"{key}.values", rule.get("values", {}), dict, "a table")
    return Rule(
        path=_read_path(f"{key}.from", rule["from"]),
        convert=_CONVERSIONS[convert] if convert is not None else None,
        values=tuple((theirs, _scalar(f"{key}.values.{theirs}", ours)) for theirs, ours in values.items()),
        join=_expect(f"{key}.join", rule["join"], str, "a text") if "join" in rule else None,
        first=first,
        default=_read_constant(f"{key}.default", rule["default"]) if "default" in rule else None,
    )


def _read_where(key: str, table: dict[str, Any]) -> tuple[Condition, ...]:
    """Read conditions; `company.kind = 1` and `"company.kind" = 1` differ to TOML and mean the same here."""
    conditions: list[Condition] = []
    for name, given in table.items():
        here, path = f"{key}.{name}", _read_path(f"{key}.{name}", name)
        if isinstance(given, dict):
            conditions += [((*path, *deeper), wanted) for deeper, wanted in _read_where(here, given)]
        else:
            several = given if isinstance(given, list) else [given]
            conditions.append((path, tuple(_scalar(here, one) for one in several)))
    return tuple(conditions)


def _read_path(key: str, text: object) -> tuple[Step, ...]:
    steps: list[Step] = []
    rest = _expect(key, text, str, 'a path, such as "a.b"')
    while step := _STEP.match(rest if steps else f".{rest}"):
        name, index = step.groups()
        steps.append(name if name is not None else int(index) if index else None)
        rest = step.string[step.end() :]
    if rest or not steps:
        raise ValueError(f'{key}: {text!r} is not a path; write "name", "a.b", "a[0].b" or "a[].b"')
    return tuple(steps)


def _read_constant(key: str, value: object) -> object:
    return [_scalar(key, one) for one in value] if isinstance(value, list) else _scalar(key, value)


def _scalar(key: str, value: object) -> object:
    if not isinstance(value, str | int | float | bool):
        raise ValueError(f"{key}: must be a text, a number, true or false")
    return value


def _expect(key: str, value: object, kind: type[T], what: str) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"{key}: must be {what}")
    return value


def _check_keys(inside: str, table: dict[str, Any], known: Collection[str]) -> None:
    """Refuse a key that means nothing here, and name the one that was likely meant."""
    for name in table:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"use one of: {', '.join(known)}"
            raise ValueError(f"{inside}.{name}: is unknown; {hint}".removeprefix("."))
