"""A finding: what one check saw, how bad that is, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, and should not stay so."""
    FAIL = "fail"
    """Something does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Of one check."""

    check: str
    verdict: Verdict
    found: str
    todo: str = ""
    """What to do; empty where there is nothing."""


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, Verdict.OK, found)


def warn(check: str, found: str, todo: str) -> Finding:
    """It works, and should not stay so."""
    return Finding(check, Verdict.WARN, found, todo)


def fail(check: str, found: str, todo: str) -> Finding:
    """Something does not work."""
    return Finding(check, Verdict.FAIL, found, todo)
