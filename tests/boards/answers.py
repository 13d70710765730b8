"""What a played board answers to one request: its list or a fault, as bytes and the pauses between them."""

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from http import HTTPStatus

from tests.boards.script import Board, Fault
from tests.boards.shapes import UNCONDITIONAL, XML, is_last, list_of

BUSY = 30
"""Seconds that a busy board asks for."""
_HUGE = 65 * 1024 * 1024
_BOMB = 256 * 1024 * 1024
_PIECE = 64 * 1024
_ENTITIES = (
    '<?xml version="1.0"?><!DOCTYPE bomb [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><workzag-jobs><position><id>1</id><name>&i;</name></position></workzag-jobs>"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A head and the pieces of a body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterator[bytes] = b""
    pause: float = 0.0
    """Seconds after each piece."""
    whole: bool = False
    """Whether a reader knows the board's list now."""


def answer_of(board: Board, target: str, headers: dict[str, str]) -> Answer:
    """Return what `board` answers now to a request for its list."""
    fault = board.next_faults.popleft() if board.next_faults else board.fault
    made = _listed(board, target, headers) if fault is None else _faulty(fault, board, target)
    made.headers.setdefault("Date", format_datetime(datetime.now(UTC) + board.clock, usegmt=True))
    return made


def head_of(answer: Answer) -> bytes:
    """Return the head of an answer; a body of unknown length ends with the connection."""
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}", "Connection: close"]
    if isinstance(answer.body, bytes) and answer.status != 304:
        answer.headers.setdefault("Content-Length", str(len(answer.body)))
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _listed(board: Board, target: str, headers: dict[str, str]) -> Answer:
    kind, text = list_of(board, target)
    body = text.encode()
    given = {"Content-Type": f"{kind}; charset=utf-8"}
    if board.source in UNCONDITIONAL:
        return Answer(200, given, body, whole=is_last(board, target))
    given["ETag"] = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    if headers.get("if-none-match") == given["ETag"]:
        return Answer(304, given, whole=True)
    return Answer(200, given, body, whole=True)


def _faulty(fault: Fault, board: Board, target: str) -> Answer:
    kind, text = list_of(board, target)
    body = text.encode()
    given = {"Content-Type": kind}
    now = datetime.now(UTC) + board.clock
    match fault:
        case "truncated":
            return Answer(200, {**given, "Content-Length": str(len(body))}, body[: len(body) // 2])
        case "empty":
            return Answer(200, given)
        case "nothing":
            return Answer(200, given, _without(board, target))
        case "not_found" | "gone" | "server":
            return Answer({"not_found": 404, "gone": 410, "server": 500}[fault], given, b"{}")
        case "busy_seconds":
            return Answer(429, {"Retry-After": str(BUSY)})
        case "busy_date":
            return Answer(429, {"Retry-After": format_datetime(now + timedelta(seconds=BUSY), usegmt=True)})
        case "private":
            return Answer(302, {"Location": "https://10.1.2.3/jobs"})
        case "huge":
            return Answer(200, given, (b" " * _PIECE for _ in range(_HUGE // _PIECE)))
        case "bomb":
            return Answer(200, {**given, "Content-Encoding": "gzip"}, _bomb())
        case "drip":
            return Answer(200, given, (bytes([byte]) for _ in range(1000) for byte in body), pause=0.05)
        case "charset":
            return Answer(200, {"Content-Type": f"{kind}; charset=iso-8859-1"}, body, whole=True)
        case "undecodable":
            return Answer(200, {"Content-Type": f"{kind}; charset=utf-8"}, text.encode("latin-1", "replace"))
        case "broken":
            return Answer(200, given, body[: len(body) // 2])
        case "entities":
            return Answer(200, {"Content-Type": "text/xml" if board.source in XML else kind}, _ENTITIES.encode())


def _without(board: Board, target: str) -> bytes:
    """Return the board's list as it is without postings."""
    return list_of(Board(board.source, board.name, board.host), target)[1].encode()


@cache
def _bomb() -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    pieces = [packer.compress(b" " * (1 << 20)) for _ in range(_BOMB >> 20)]
    return b"".join([*pieces, packer.flush()])
