"""From what adapters read out of a source's records to postings, and to those that cannot be any."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from pydantic import ValidationError

from feed.errors import Fault
from feed.ingest.adapter import BadPosting, Found, Malformed
from feed.ingest.record import Record, kind_of
from feed.model.posting import PostingIn, faults_of

Fields = dict[str, Any]
"""Fields of a posting; None where a source does not tell."""

_NEEDED: Final = ("external_id", "title", "company", "url")
_LONGEST_ID: Final = 500
"""Characters of an external id; a longer one is replaced by its hash."""
_MOST: Final = 200_000
"""Records of a board."""
_MENDINGS: Final = 4
"""Times that a posting is checked; what is cut or left out may show what else does not fit."""
_TOGETHER: Final = ("salary_min", "salary_max", "currency", "salary_period", "latitude", "longitude")
"""Fields that only fit together."""


def collect(
    source: str,
    records: Sequence[object],
    read: Callable[[Record], Fields | BadPosting | None],
    *,
    complete: bool,
    company: str | None = None,
    of_one_company: bool = False,
) -> Found:
    """Return the postings that `read` makes of `records`, the first of each external id.

    `read` returns None for what is no posting of the board. `company` is the name for postings that come without one;
    `of_one_company` says that the board is one company's, whose name its postings tell. Optional fields that do not fit
    are cut or left out; a posting without one of the needed fields is a bad one. Raises Malformed where there are more
    records than any board has.
    """
    if len(records) > _MOST:
        raise Malformed(f"{source}: the list holds {len(records):,} records; at most {_MOST:,} are read.")
    postings: dict[str, PostingIn] = {}
    bad: list[BadPosting] = []
    told: set[str | None] = set()
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            bad.append(BadPosting(None, [Fault("posting", f"must be an object, and is {kind_of(record)}", index)]))
            continue
        fields = read(Record(record))
        if fields is None:
            continue
        if isinstance(fields, BadPosting):
            faults = [Fault(fault.field, fault.message, index) for fault in fields.faults]
            bad.append(BadPosting(fields.external_id, faults))
            continue
        told.add(fields.get("company"))
        made = _posting({**fields, "source": source, "company": fields.get("company") or company}, index)
        if isinstance(made, BadPosting):
            bad.append(made)
        elif made.external_id is not None:
            first = postings.setdefault(made.external_id, made)
            if (first.url, first.title) != (made.url, made.title):
                fault = Fault("external_id", "is that of another posting in the list; the first one counts", index)
                bad.append(BadPosting(made.external_id, [fault]))
    name = told.pop() if of_one_company and len(told) == 1 else None
    return Found(tuple(postings.values()), complete, tuple(bad), name)


def _posting(fields: Fields, index: int) -> PostingIn | BadPosting:
    given = {name: value for name, value in fields.items() if value not in (None, "", [])}
    name = given.get("external_id")
    if isinstance(name, str) and len(name) > _LONGEST_ID:
        name = given["external_id"] = f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
    faults = [Fault(field, "is required", index) for field in _NEEDED if field not in given]
    if faults:
        return BadPosting(name, faults)
    faults = []
    for _ in range(_MENDINGS):
        try:
            return PostingIn.model_validate(given)
        except ValidationError as error:
            faults = faults_of(error, index)
            for entry in error.errors(include_url=False, include_input=False):
                _mend(given, entry["loc"], entry.get("ctx", {}).get("max_length"))
    return BadPosting(name, faults)


def _mend(fields: Fields, where: tuple[int | str, ...], longest: int | None) -> None:
    """Cut the field to `longest`, or leave it out unless a posting needs it."""
    if not where:  # of the posting as a whole
        for name in _TOGETHER:
            fields.pop(name, None)
        return
    name = str(where[0])
    if len(where) > 1 and longest is not None:
        fields[name] = [tag[:longest] for tag in fields[name]]
    elif longest is not None and name not in ("url", "external_id"):
        fields[name] = fields[name][:longest]
    elif name not in _NEEDED:
        fields.pop(name, None)
