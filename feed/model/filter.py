"""A filter: which events a subscriber wants. OR within a name, AND between names.

`Filter.matches` decides in memory; `feed.database.conditions` asks the same of SQL, with the functions of
migrations/0004_fold.sql. `tests/postgres/test_filter.py` holds the two against each other.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from feed.model.event import Event, Kind
from feed.model.fold import fold, words

# Names whose values compare whole, folded; each is also the name of a posting's field (`tag` reads `tags`).
EQUALITY = ("company", "country", "workplace", "employment_type", "seniority", "tag")

PERIODS = {None: 1.0, "year": 1.0, "month": 12.0, "week": 52.0, "day": 260.0, "hour": 2080.0}
"""Periods a year: 52 weeks of 5 days of 8 hours."""

EARTH_RADIUS = 6371.0088
"""Mean radius in kilometres."""


class Terms:
    """A posting as filters see it. Text is folded at the first look, once for all filters."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._job = job

    @cached_property
    def equal(self) -> dict[str, frozenset[str]]:
        """The folded values under each name of EQUALITY; a field that is null has none."""
        job = self._job
        found = {
            name: frozenset((fold(job[name]),)) if job[name] is not None else frozenset() for name in EQUALITY[:-1]
        }
        found["tag"] = frozenset([fold(tag) for tag in job["tags"] or ()])
        return found

    @cached_property
    def location(self) -> str:
        """The words of the location, as `words` returns them."""
        return words(self._job["location"] or "")

    @cached_property
    def text(self) -> str:
        """The words of title, company, tags and location, which `q` searches."""
        job = self._job
        return words(" ".join((job["title"], job["company"], *(job["tags"] or ()), job["location"] or "")))

    @cached_property
    def pay(self) -> float | None:
        """The upper bound of the salary, or else the lower one, as an amount a year in `currency`; None without a salary."""
        job = self._job
        bound = job["salary_max"] if job["salary_max"] is not None else job["salary_min"]
        return None if bound is None else float(bound) * PERIODS[job["salary_period"]]

    @property
    def currency(self) -> str | None:
        """The currency of the salary, such as EUR; None where it is not known."""
        found: str | None = self._job["currency"]
        return found

    def distance(self, latitude: float, longitude: float) -> float | None:
        """Return the great-circle distance from a point in kilometres, or None where the posting has no coordinates."""
        lat, lon = self._job["latitude"], self._job["longitude"]
        if lat is None or lon is None:
            return None
        return distance_km(latitude, longitude, lat, lon)


def distance_km(lat1: float, lon1: float, lat2: float, lon2: float) -> float:
    """Return the great-circle distance in kilometres between two points in degrees, by the haversine formula."""
    half = (
        math.sin(math.radians(lat2 - lat1) / 2) ** 2
        + math.cos(math.radians(lat1)) * math.cos(math.radians(lat2)) * math.sin(math.radians(lon2 - lon1) / 2) ** 2
    )
    return 2 * EARTH_RADIUS * math.asin(min(1.0, math.sqrt(half)))


@dataclass(frozen=True, slots=True)
class Near:
    """A circle on the Earth: its centre in degrees, its radius in kilometres."""

    latitude: float
    longitude: float
    radius_km: float


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter in canonical form: values are folded and sorted, so that filters that mean the same are equal."""

    company: tuple[str, ...] = ()
    country: tuple[str, ...] = ()
    workplace: tuple[str, ...] = ()
    employment_type: tuple[str, ...] = ()
    seniority: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    location: tuple[str, ...] = ()  # each as words(): " berlin "
    q: tuple[str, ...] = ()  # word beginnings, all of them wanted
    salary_min: float | None = None  # a year, in `currency`
    currency: tuple[str, ...] = ()
    near: Near | None = None
    event: tuple[Kind, ...] = field(default=())
    within: "Filter | None" = None
    """Another filter that must match too: the part of the feed that a credential lets its holder see."""

    def narrowed(self, within: "Filter") -> "Filter":
        """Return this filter inside another one, beyond which its holder sees nothing."""
        return self if within == EVERYTHING else replace(self, within=within)

    def equalities(self) -> tuple[str, tuple[str, ...]] | None:
        """Return a name, and values of which a matching posting has one, to index this filter by, or None."""
        for name in ("company", "tag", "country", "seniority", "employment_type", "workplace"):
            values: tuple[str, ...] = getattr(self, name)
            if values:
                return name, values
        return None if self.within is None else self.within.equalities()

    def matches(self, posting: Terms) -> bool:
        """Whether a posting matches, whatever the kind of the event."""
        for name in EQUALITY:
            wanted: tuple[str, ...] = getattr(self, name)
            if wanted and posting.equal[name].isdisjoint(wanted):
                return False
        if self.location and not any(part in posting.location for part in self.location):
            return False
        if self.currency and posting.currency not in self.currency:
            return False
        if self.salary_min is not None and (posting.pay is None or posting.pay < self.salary_min):
            return False
        if self.q and not all(beginning in posting.text for beginning in self.q):
            return False
        if self.near is not None:
            away = posting.distance(self.near.latitude, self.near.longitude)
            if away is None or away > self.near.radius_km:
                return False
        return self.within is None or self.within.matches(posting)

    def wants(self, kind: Kind) -> bool:
        """Whether events of this kind are wanted at all."""
        return (not self.event or kind in self.event) and (self.within is None or self.within.wants(kind))

    def kind_of(self, event: Event, now: Terms, before: Terms) -> Kind | None:
        """Return what this filter's subscribers are told: the kind of the event, CLOSED if the posting left it, or None.

        `now` and `before` are the posting after the change and before it.
        """
        if self.matches(now):
            kind = event.kind
        elif event.kind is Kind.POSTED or before is now or not self.matches(before):
            return None
        else:
            kind = Kind.CLOSED
        return kind if self.wants(kind) else None


EVERYTHING = Filter()
