"""Preparation: a record of the input becomes a posting that can be written, or is rejected."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import orjson

from feed.cli.record_reader import Record
from feed.cli.target import Prepared
from feed.errors import Fault, Invalid
from feed.model.mapping import RecordMap
from feed.model.posting import PostingIn

# Bytes that a server takes for one posting.
_LARGEST_POSTING = 1024 * 1024


class Rejected(Invalid):
    """A record cannot be written; `external_id` is that of the posting it stands for, or None where it names none."""

    def __init__(self, faults: list[Fault], external_id: object = None) -> None:
        super().__init__(faults)
        self.external_id: str | None = None
        if isinstance(external_id, str) and not any(fault.field == "external_id" for fault in faults):
            self.external_id = external_id


class Preparation:
    """Makes postings of records, by a mapping where there is one; with `sync`, for that source.

    `keep`: a posting keeps the record that it was made of.
    """

    def __init__(self, mapping: RecordMap | None, sync: str | None, *, keep: bool) -> None:
        self._mapping = mapping
        self._sync = sync
        self._keep = keep

    def prepare(self, record: Record) -> Prepared | None:
        """Return the posting that `record` stands for, None where the mapping skips it; raises Rejected."""
        if record.value is None:
            raise Rejected([Fault("record", record.fault)])
        try:
            posting = self._mapping.apply(record.value) if self._mapping else record.value
        except Invalid as error:
            raise Rejected(
                list(error.faults), self._mapping.external_id(record.value) if self._mapping else None
            ) from None
        if posting is None:
            return None
        if self._sync is not None and posting.get("source") is None:
            posting = {**posting, "source": self._sync}
        external_id = posting.get("external_id")
        try:
            name = external_id if external_id is not None else name_by_content(posting)
            given = {**posting, "external_id": name}
            if self._sync is not None and "closed_at" not in posting and not _is_over(posting.get("valid_through")):
                given["closed_at"] = None  # reopens a posting that an earlier --sync closed because it was missing
            text = orjson.dumps(given)
        except orjson.JSONEncodeError as error:
            raise Rejected([Fault("record", str(error))], external_id) from None
        if len(text) > _LARGEST_POSTING:
            raise Rejected([Fault("record", f"is over {_LARGEST_POSTING >> 20} MiB")], external_id)
        source = posting.get("source", PostingIn.model_fields["source"].default)
        kept = record.json if self._keep else b""
        return Prepared(record.place, (str(source), str(name)), text, external_id is not None, kept)


def name_by_content(posting: dict[str, Any]) -> str:
    """Return an external id made of what the posting says: the same content, the same id."""
    content = {name: value for name, value in posting.items() if name != "external_id"}
    canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    return f"sha256-{hashlib.sha256(canonical).hexdigest()[:20]}"


def _is_over(valid_through: object) -> bool:
    """Whether this time (RFC 3339) is past: a posting reopened with it would expire again at once."""
    try:
        return datetime.fromisoformat(str(valid_through)) <= datetime.now(UTC)
    except (ValueError, TypeError):  # no time, or one without a zone, which is refused where it is checked
        return False
