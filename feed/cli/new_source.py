"""A source out of what a command line says of it, with everything checked that can be checked without the network."""

from collections.abc import Iterator
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import urlsplit

from feed.cli.ages import age
from feed.errors import ConfigurationError
from feed.ingest.adapter import Adapter
from feed.ingest.extra import missing_extra
from feed.model.mapping import RecordMap
from feed.model.source import NewSource

_USUAL = 900.0
"""Seconds between two fetches that are usual, and so not worth a word."""


def new_source(name: str, url: str | None, map_file: Path | None, *, accept_terms: bool) -> NewSource:
    """Return the source that `name` (such as `greenhouse:acme`) stands for.

    Raises ConfigurationError where there is no such adapter, the board cannot be one, the mapping is missing or wrong, a
    library is missing, or the board's terms keep it off.
    """
    kind, colon, board = name.partition(":")
    if not colon or not kind or not board:
        raise ConfigurationError(
            f"{name!r} does not name a source: write the kind of board, a colon and the board, as in greenhouse:acme."
        )
    mapping = _mapping(map_file)
    adapter = adapter_named(kind, mapping)
    if adapter.off is not None and not accept_terms:
        raise ConfigurationError(
            f"{kind} is off: {adapter.off}. If you may fetch this board all the same, say so with --accept-terms."
        )
    terms = adapter.terms
    return NewSource(
        kind, board, _host(url or adapter.address(board)), url, mapping, adapter.off is not None,
        terms.attribution, terms.min_interval, terms.syndicate,
    )  # fmt: skip


def adapter_named(kind: str, mapping: str | None) -> Adapter:
    """Return the adapter called `kind`.

    Raises ConfigurationError where there is none, or where the libraries are missing that adapters need.
    """
    missing = missing_extra()
    if missing is not None:
        raise ConfigurationError(missing)
    from feed.ingest.adapters import (  # needs the extra, which other commands do without
        MAPPED,
        adapter_names,
        adapter_of,
    )

    names = adapter_names()
    if kind not in names:
        near = get_close_matches(kind.lower(), names, 1)
        raise ConfigurationError(
            f"There is no kind of board called {kind!r}{f': did you mean {near[0]}?' if near else '.'} "
            f"These are known: {', '.join(names)}."
        )
    if kind == MAPPED and mapping is None:
        raise ConfigurationError(
            f"{kind} reads any JSON by a mapping: name a file of it with --map, written as for `feed post --map`."
        )
    return adapter_of(kind, mapping)


def terms_of(source: NewSource) -> Iterator[str]:
    """Yield what the terms of a source ask for, one by one."""
    if source.attribution is not None:
        yield f"{source.attribution} must be named beside its postings"
    if source.min_interval > _USUAL:
        yield f"it is fetched once in {age(timedelta(seconds=source.min_interval))} at the most"
    if not source.syndicate:
        yield "its postings must not be passed on to other boards"


def _mapping(file: Path | None) -> str | None:
    """Return the text of a mapping file; raises MappingError, a ConfigurationError that names the file."""
    if file is None:
        return None
    RecordMap.load(file)
    return file.read_text("utf-8")


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        host = None
    if not host:
        raise ConfigurationError(f"{url!r} is not a URL that can be fetched: it begins with https:// and names a host.")
    return host
