"""The faults of records, as `feed post` tells them: each with its place, and of those of one kind the first few."""

import re
from collections import Counter
from collections.abc import Iterable
from importlib import resources

from feed.cli.messages import say
from feed.errors import Fault

_TOLD = 20
"""Faults of one kind that are told one by one."""
_VALUES = re.compile(r"'[^']*'|\"[^\"]*\"|[0-9]+")
_FOREIGN = re.compile("is no field|is required|unknown field")
"""What is said of a record that is not in the form of a posting."""


class FaultReport:
    """Tells faults on stderr as they come, and at the end how many more there were of each kind."""

    def __init__(self, *, mapped: bool) -> None:
        self._mapped = mapped
        self._counts: Counter[str] = Counter()
        """By kind: what is said, without the values in it."""
        self._foreign = False

    def tell(self, place: str, faults: Iterable[Fault]) -> None:
        """Tell the faults of the record at `place`."""
        for fault in faults:
            kind = _VALUES.sub("...", fault.message)
            self._counts[kind] += 1
            self._foreign = self._foreign or bool(_FOREIGN.match(fault.message))
            if self._counts[kind] <= _TOLD:
                say(f"{place}: {fault.field}: {fault.message}")

    def conclude(self, *, accepted: int) -> None:
        """Tell what has not been told; where no record was `accepted`, also what to do about it."""
        for kind, count in self._counts.items():
            if count > _TOLD:
                say(f'{count - _TOLD:,} more faults of the kind "{kind}" are not shown.')
        if self._foreign and not self._mapped and not accepted:
            example = resources.files("feed") / "examples" / "simplify.toml"
            say(
                "Records that are not in the form of feed's postings need a mapping: feed post FILE --map MAPPING. "
                f"For an example to start from, see {example}"
            )
