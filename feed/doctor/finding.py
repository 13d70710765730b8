"""A finding: what one check saw, how bad that is, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    """Something works, and should not stay as it is."""
    FAIL = "fail"
    """Something does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    verdict: Verdict
    found: str
    todo: str = ""
    """What to do about it; empty where there is nothing to do."""


def ok(check: str, found: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check, Verdict.OK, found)


def warn(check: str, found: str, todo: str) -> Finding:
    """Return a finding that something works and should not stay as it is."""
    return Finding(check, Verdict.WARN, found, todo)


def fail(check: str, found: str, todo: str) -> Finding:
    """Return a finding that something does not work."""
    return Finding(check, Verdict.FAIL, found, todo)
