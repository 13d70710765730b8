"""Complaints: what pydantic finds wrong with a value, in plain words for whoever sent it."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

PAGE_MARK = r"^(j\d{1,19}|p-?\d{1,19}\.\d{1,19})$"
"""The pattern of a list's `next`, which `after` takes."""
PAGE_MARK_BEFORE = r"^(?:j\d{1,19}|p-?\d{1,19}\.\d{1,19})$"
"""The pattern of a list's `previous`, which `before` takes: the same, written otherwise so that its complaint can differ."""
CURRENCY = "^[A-Z]{3}$"
CURRENCY_IN_ANY_CASE = "^[A-Za-z]{3}$"

_PATTERNS = {
    PAGE_MARK: "takes the `next` of the page before, such as `j42`",
    PAGE_MARK_BEFORE: "takes the `previous` of the page after, such as `j42`",
    CURRENCY: "must be a currency code of three capital letters, such as EUR",
    CURRENCY_IN_ANY_CASE: "must be a currency code of three letters, such as EUR",
}
_WORDS = {
    "missing": "is required",
    "string_type": "must be text",
    "int_type": "must be a whole number", "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number", "int_from_float": "must be a whole number",
    "float_type": "must be a number", "float_parsing": "must be a number", "finite_number": "must be a finite number",
    "decimal_type": "must be a number", "decimal_parsing": "must be a number",
    "bool_type": "must be true or false", "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must have at least {min_length} characters",
    "too_long": "must have at most {max_length} values",
    "greater_than_equal": "must be at least {ge}", "greater_than": "must be over {gt}",
    "less_than_equal": "must be at most {le}", "less_than": "must be under {lt}",
    "decimal_max_digits": "must have at most {max_digits} digits",
    "decimal_max_places": "must have at most {decimal_places} decimal places",
    "decimal_whole_digits": "must have at most {whole_digits} digits before the decimal point",
    "literal_error": "must be {expected}", "enum": "must be {expected}",
    "timezone_aware": "must have a time zone, such as Z or +01:00",
    "model_type": "must be a JSON object", "model_attributes_type": "must be a JSON object",
    "json_invalid": "must be valid JSON",
}  # fmt: skip
"""By pydantic's type of error; the braces name what its context holds."""

_LONGEST = 60
"""Characters of a name for which a near one is looked for."""
_CORRECTED = 10
"""Unknown names in one request for which a near one is looked for."""


def complaint(entry: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, from an entry of `ValidationError.errors()`."""
    kind, context = entry["type"], entry.get("ctx", {})
    if kind == "string_pattern_mismatch" and context.get("pattern") in _PATTERNS:
        return _PATTERNS[context["pattern"]]
    if kind in ("too_long", "too_short") and context.get("field_type") == "Value":
        kind = f"string_{kind}"  # text whose length is checked behind a validator of ours
    if kind == "string_too_short" and context.get("min_length") == 1:
        return "must not be empty"
    if kind in _WORDS:
        return _WORDS[kind].format_map(context).replace("'", "")
    return str(entry["msg"]).removeprefix("Value error, ")


def complaints(
    entries: Iterable[Mapping[str, Any]], what: str, known: Collection[str], instead: Mapping[str, str] | None = None
) -> list[str]:
    """Return what is wrong in each entry of `ValidationError.errors()`.

    A name that is not among the `known` is called an unknown `what` (filter, parameter, field), with the name that it was
    probably meant to be, or with what `instead` says of it.
    """
    found, corrected = [], 0
    for entry in entries:
        if entry["type"] != "extra_forbidden":
            found.append(complaint(entry))
            continue
        name = str(entry["loc"][-1])
        corrected += 1
        near = (
            [] if corrected > _CORRECTED or len(name) > _LONGEST else difflib.get_close_matches(name.lower(), known, 1)
        )
        if instead is not None and name in instead:
            found.append(f"unknown {what}: {instead[name]}")
        elif near:
            found.append(f"unknown {what}; did you mean `{near[0]}`?")
        else:
            found.append(f"unknown {what}")
    return found
