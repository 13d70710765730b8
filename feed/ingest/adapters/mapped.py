"""Any other JSON: a list of records at a URL, which a mapping file turns into postings."""

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urldefrag

from feed.errors import Invalid
from feed.ingest.adapter import Answer, BadPosting, Found, Malformed
from feed.ingest.board import SingleAnswer
from feed.ingest.body import json_of
from feed.ingest.collect import Fields, collect
from feed.ingest.record import Record, kind_of, line
from feed.model.mapping import RecordMap

_FURTHER: Final = ("next", "next_url", "next_page", "nextPage", "next_cursor", "nextCursor", "nextPageToken")
"""Fields beside a list by which an answer says that it has more pages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped(SingleAnswer):
    """Reads JSON by a mapping; a board is its URL, whose fragment may say where the list is: `#/data/jobs`.

    Without a fragment it is the body itself, or the one list of objects in it.
    """

    name: str = "json"
    mapping: RecordMap

    def address(self, board: str) -> str:
        return urldefrag(self.page(board)).url

    def found(self, board: str, answer: Answer) -> Found:
        body = json_of(answer)
        records = _records(body, urldefrag(board).fragment, answer.where)
        further = isinstance(body, dict) and any(body.get(name) for name in _FURTHER)

        return collect(self.source(board), records, self._posting, complete=not further)

    def _posting(self, record: Record) -> Fields | BadPosting | None:
        try:
            fields = self.mapping.apply(record.fields)
        except Invalid as error:
            return BadPosting(self._external_id(record), list(error.faults))
        return fields and {**fields, "external_id": fields.get("external_id") or fields.get("url")}

    def _external_id(self, record: Record) -> str | None:
        """Return the id of a record that is no posting, so that it still counts as one that the board lists."""
        try:
            return line(self.mapping.posting["external_id"](record.fields))
        except (KeyError, ValueError):
            return None


def _records(body: Any, pointer: str, url: str) -> list[Any]:
    """Return the list at `pointer` (RFC 6901, section 6), or the one list of objects. Raises Malformed."""
    if pointer:
        found = _at(body, pointer)
        if not isinstance(found, list):
            raise Malformed(f"{url}: at {pointer} there must be a list, and it is {kind_of(found)}.")
        return found
    if isinstance(body, list):
        return body
    lists = {name: one for name, one in body.items() if _of_objects(one)} if isinstance(body, dict) else {}
    if len(lists) == 1:
        return next(iter(lists.values()))
    empty = [one for one in body.values() if one == []] if isinstance(body, dict) else []
    if not lists and len(empty) == 1:
        return []
    names = ", ".join(sorted(lists)[:10]) or "none"
    raise Malformed(
        f"{url}: it is not clear which list holds the postings (lists of objects: {names}); "
        "name it in a fragment of the board's URL, such as #/data/jobs."
    )


def _of_objects(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(one, dict) for one in value)


def _at(body: Any, pointer: str) -> Any:
    for escaped in unquote(pointer).removeprefix("/").split("/"):
        name = escaped.replace("~1", "/").replace("~0", "~")
        if isinstance(body, dict):
            body = body.get(name)
        elif isinstance(body, list) and re.fullmatch("[0-9]{1,9}", name, re.ASCII) and int(name) < len(body):
            body = body[int(name)]
        else:
            return None
    return body
