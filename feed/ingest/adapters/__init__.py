"""The adapters that there are, by the names that sources have."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from feed.errors import ConfigurationError
from feed.ingest.adapter import Adapter
from feed.ingest.adapters.ashby import Ashby
from feed.ingest.adapters.greenhouse import Greenhouse
from feed.ingest.adapters.jsonld import JsonLd
from feed.ingest.adapters.lever import Lever
from feed.ingest.adapters.mapped import Mapped
from feed.ingest.adapters.personio import Personio
from feed.ingest.adapters.recruitee import Recruitee
from feed.ingest.adapters.remoteok import RemoteOk
from feed.ingest.adapters.remotive import Remotive
from feed.ingest.adapters.rss import Rss
from feed.ingest.adapters.smartrecruiters import SmartRecruiters
from feed.model.mapping import RecordMap

MAPPED = "json"
"""The name of the adapter that needs a mapping."""


@lru_cache(maxsize=1)
def _plain() -> Mapping[str, Adapter]:
    """Return the adapters that need no mapping."""
    adapters: list[Adapter] = [
        Greenhouse(), Lever(), Lever(name="lever-eu", host_name="api.eu.lever.co"), Ashby(), Recruitee(), Personio(),
        SmartRecruiters(), Remotive(), RemoteOk(), Rss(), JsonLd(),
    ]  # fmt: skip
    return MappingProxyType({adapter.name: adapter for adapter in adapters})


def adapter_names() -> tuple[str, ...]:
    """Return the names of all adapters."""
    return (*_plain(), MAPPED)


def adapter_of(name: str, mapping: str | None = None) -> Adapter:
    """Return the adapter called `name`; `mapping` is the text of a mapping file, which `json` needs and no other takes.

    Raises ConfigurationError, which names the adapters that there are, or says what is wrong with the mapping.
    """
    if name == MAPPED:
        if mapping is None:
            raise ConfigurationError(f"{name}: a mapping is needed that turns its records into postings.")
        return Mapped(mapping=RecordMap.parse(mapping))
    if name not in _plain():
        raise ConfigurationError(f"{name}: there is no such adapter; use one of: {', '.join(adapter_names())}.")
    if mapping is not None:
        raise ConfigurationError(f"{name}: takes no mapping; only {MAPPED} does.")
    return _plain()[name]
