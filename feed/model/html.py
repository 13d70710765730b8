"""HTML of descriptions: the safe subset of it that readers get, and its plain text.

Whoever writes postings may have copied their HTML from anywhere, so none of it is trusted.
"""

import re
from dataclasses import dataclass, field
from html import escape, unescape
from typing import Final

import nh3

_SUBSET = "a b blockquote br caption code div em h2 h3 h4 i li ol p pre strong table tbody td tfoot th thead tr u ul"
_REMOVED = "iframe math noembed noframes object script select style svg template textarea title"
"""Elements that go with all that is in them; of other unknown ones the text stays."""

_AS_DIV = (
    "address article aside center dd details dl dt fieldset figcaption figure footer form header legend main nav section "
    "summary"
)
_RENAMED: Final = {**dict.fromkeys(_AS_DIV.split(), "div"), "h1": "h2", "h5": "h4", "h6": "h4"}
"""Elements outside the subset that end a line, so that no words run together: each becomes the nearest one within it."""
_FOREIGN: Final = re.compile(rf"(</?)({'|'.join(_RENAMED)})(?=[\s/>])", re.IGNORECASE)

# A parser can need time or memory in the square of what it is given: for elements nested without end, for formatting
# elements with ever different attributes (each new paragraph repeats all that are open), for many character references,
# for a tag with many attributes.
_MOST_CHARACTERS: Final = 256 * 1024
_MOST_TAGS: Final = 5_000
_MOST_REFERENCES: Final = 20_000
_INLINE: Final = re.compile(r"\bdata:[^\s\"'<>]*", re.IGNORECASE)
"""An image within a tag, which may be large and is not kept."""
_TAG_LIKE: Final = re.compile(r"<[a-zA-Z/!?][^<>]*>?")
_ATTRIBUTED: Final = re.compile(r"<(b|code|em|i|strong|u)(?=[\s/])", re.IGNORECASE)
_DROPPED: Final = re.compile(r"(</?)(?:big|font|nobr|s|small|strike|tt)(?=[\s/>])", re.IGNORECASE)

_SAFE: Final = nh3.Cleaner(
    tags=set(_SUBSET.split()),
    clean_content_tags=set(_REMOVED.split()),
    attributes={"a": {"href"}},
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
    link_rel="noopener nofollow ugc",
)
_BARE: Final = nh3.Cleaner(
    tags=set(_SUBSET.split()), clean_content_tags=set(_REMOVED.split()), attributes={}, link_rel=None
)
"""Leaves no attributes, so that every tag of its result is one that `_TAG` matches."""

_TAG: Final = re.compile(r"<(/?)([a-z0-9]+)>")
_SPACE: Final = re.compile(r"\s+")
_PARAGRAPHS: Final = frozenset(("blockquote", "h2", "h3", "h4", "ol", "p", "pre", "table", "ul"))
"""Blocks with a blank line before and after them."""
_LINES: Final = frozenset(("caption", "div", "li", "tr"))
"""Blocks that begin and end a line."""


def sanitised(html: str) -> str:
    """Return the safe subset of `html`: no scripts, styles, images or event handlers, and links to web and mail only.

    Of HTML with more than 256 Ki characters, 5,000 tags or 20,000 character references, which is no description of a
    job, only the text between the tags is left.
    """
    prepared = _prepared(html)
    return escape(_untagged(html), quote=False) if prepared is None else _SAFE.clean(prepared)


def text_of(html: str) -> str:
    """Return `html` as plain text: a line for each block, "- " before list items, at most one blank line in a row."""
    text = _Text()
    prepared = _prepared(html)
    if prepared is None:
        text.write(_untagged(html))
        return str(text)
    first, *rest = _TAG.split(_BARE.clean(prepared))
    text.write(unescape(first))
    for slash, name, following in zip(rest[0::3], rest[1::3], rest[2::3], strict=True):
        text.mark(name, ends=bool(slash))
        text.write(unescape(following))
    return str(text)


def _prepared(html: str) -> str | None:
    """Return what the parser is given: some elements have other names, and formatting has no attributes; None: too much."""
    html = _INLINE.sub("", html)
    if len(html) > _MOST_CHARACTERS or html.count("<") > _MOST_TAGS or html.count("&") > _MOST_REFERENCES:
        return None
    html = _ATTRIBUTED.sub(r"<\1><feed-attributes", html)
    html = _DROPPED.sub(r"\1span", html)
    return _FOREIGN.sub(lambda tag: tag[1] + _RENAMED[tag[2].lower()], html)


def _untagged(html: str) -> str:
    return unescape(_TAG_LIKE.sub(" ", html))


@dataclass(slots=True)
class _Text:
    """Plain text as it is put together from tags and what is between them."""

    _pieces: list[str] = field(default_factory=list)
    _breaks: int = 0
    """Line breaks to write before the next text."""
    _lists: int = 0
    _cells: int = 0
    """Lists and table cells that are open."""
    _first: bool = True
    """No cell of the row has begun yet."""
    _item: bool = False
    """A list item has begun, and none of its text has come yet."""
    _preformatted: bool = False

    def mark(self, name: str, *, ends: bool) -> None:
        """Note that the element `name` begins or ends here."""
        change = -1 if ends else 1
        if name in ("ul", "ol"):
            self._lists += change
        elif name in ("td", "th"):
            self._cells += change
            if not ends and not self._first:
                self._append(" | ")
            self._first = False
        elif name == "pre":
            self._preformatted = not ends
        if name in ("li", "ul", "ol"):
            self._item = name == "li" and not ends
        if self._cells:
            self.write(" " if name in _PARAGRAPHS or name in _LINES or name == "br" else "")
        elif name == "br":
            self._breaks += 1
        elif name in _PARAGRAPHS:
            self._breaks = max(self._breaks, 1 if self._lists else 2)
        elif name in _LINES:
            self._breaks = max(self._breaks, 1)
            self._first = self._first or name == "tr"

    def write(self, text: str) -> None:
        """Add the text between two tags."""
        if self._preformatted:
            self._append(text.replace(" ", "\xa0"))  # which __str__ tells from spaces that mean nothing
            return
        text = _SPACE.sub(" ", text)
        if text.strip(" ") or (text and not self._breaks and not self._item):
            self._append(text)

    def _append(self, text: str) -> None:
        if self._pieces:
            self._pieces.append("\n" * self._breaks)
        self._breaks = 0
        if self._item:
            self._pieces.append("- ")
            self._item = False
        self._pieces.append(text)

    def __str__(self) -> str:
        lines = (line.strip(" ").rstrip() for line in re.sub(" +", " ", "".join(self._pieces)).split("\n"))
        return re.sub("\n{3,}", "\n\n", "\n".join(lines)).strip("\n").replace("\xa0", " ")
