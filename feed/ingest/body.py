"""Bodies of answers as text, JSON and XML; what is neither is `Malformed`."""

import codecs
import json
import re
from email.message import Message
from typing import Any, Final
from xml.etree.ElementTree import (  # nosec B405
    Element,
    ParseError,
)

import defusedxml.ElementTree
import orjson

from feed.ingest.adapter import Answer, Malformed

_BYTE_ORDER_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED: Final = re.compile(
    rb"""<\?xml[^>]{0,200}?encoding=["']([\w.:-]{1,40})|<meta[^>]{0,200}?charset=["']?([\w.:-]{1,40})""", re.IGNORECASE
)
_PROLOG: Final = 2048
"""Bytes at the beginning of a document in which it may name its own charset."""
_MOST_VALUES: Final = 5_000_000
"""Values in a JSON document, about: each takes some hundred bytes of memory, however few it takes in the document."""
_LARGEST_TREE: Final = 16 * 1024 * 1024
"""Bytes of an XML or HTML document, whose tree takes many times as much memory."""
_ENTITY: Final = re.compile(r"<!ENTITY", re.IGNORECASE)
_ROOT: Final = re.compile(r"<[A-Za-z_]")


def text_of_body(answer: Answer, otherwise: str | None = None) -> str:
    """Return the body as text: in UTF-8 if it is that, whatever the header says, or else in the charset that is declared.

    A charset may be declared by a byte order mark, by the header, or by the document itself; where none that fits is
    declared, `otherwise` is tried. Raises Malformed, as it does for an empty body.
    """
    body = answer.body
    if not body.strip():
        raise Malformed(f"{answer.where}: the body is empty.")
    marked = [name for mark, name in _BYTE_ORDER_MARKS if body.startswith(mark)]
    declared = _DECLARED.search(body, 0, _PROLOG)
    named = [(declared[1] or declared[2]).decode("ascii", "replace")] if declared else []
    for charset in (*marked, "utf-8", _charset(answer.content_type), *named, otherwise):
        if charset:
            try:
                return body.decode(charset)
            except (UnicodeError, LookupError, ValueError):
                continue
    raise Malformed(f"{answer.where}: the body is not UTF-8, and no charset is declared that fits it.")


def tree_text(answer: Answer, otherwise: str | None = None) -> str:
    """Return the same of a document that is to become a tree. Raises Malformed where it is too large for that."""
    if len(answer.body) > _LARGEST_TREE:
        raise Malformed(f"{answer.where}: the document is larger than {_LARGEST_TREE >> 20} MiB.")
    return text_of_body(answer, otherwise)


def json_of(answer: Answer) -> Any:
    """Return the body as JSON. Raises Malformed, which shows how the body begins."""
    text = text_of_body(answer)
    if sum(map(text.count, ",[{")) > _MOST_VALUES:
        raise Malformed(f"{answer.where}: the JSON holds more than {_MOST_VALUES:,} values.")
    try:
        return parse_json(text)
    except ValueError as error:
        begin = " ".join(text[:60].split())
        raise Malformed(f"{answer.where}: the body is not JSON ({error}); it begins with {begin!r}.") from error


def parse_json(text: str) -> Any:
    """Return what the JSON `text` says; control characters in its strings are read as they are. Raises ValueError."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    except UnicodeEncodeError as error:  # a lone surrogate, which no charset of ours yields
        raise ValueError(str(error)) from error
    try:
        return json.loads(text, strict=False)  # which takes control characters, and halves of surrogate pairs
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def xml_of(answer: Answer) -> Element:
    """Return the root of the XML document in the body. Raises Malformed, as it does for any that declares entities."""
    text = tree_text(answer)
    refuse_entities(answer.where, text)
    try:
        # As text, since a document may declare another charset than the one that it is in.
        root: Element = defusedxml.ElementTree.fromstring(text)
    except (ParseError, ValueError) as error:
        begin = " ".join(text[:60].split())
        raise Malformed(f"{answer.where}: the body is not readable XML ({error}); it begins with {begin!r}.") from error
    return root


def refuse_entities(url: str, text: str) -> None:
    """Raise Malformed where an XML document declares entities, which expand to any size."""
    root = _ROOT.search(text)
    if _ENTITY.search(text, 0, root.start() if root else len(text)):
        raise Malformed(f"{url}: the XML declares entities, which no source needs and which can expand to any size.")


def _charset(content_type: str) -> str | None:
    message = Message()
    message["content-type"] = content_type.replace("\n", " ").replace("\r", " ")
    return message.get_content_charset()
