"""A filter: which events a subscriber wants. OR within a name, AND between names.

`Filter.matches` decides in memory; `feed.database.conditions` asks the same of SQL, with the functions of
migrations/0004_fold.sql. `tests/postgres/test_filter.py` holds the two against each other.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from sys import intern
from typing import Any

from feed.model.event import Kind
from feed.model.fold import fold, words

# Names whose values compare whole, folded; each is also the name of a posting's field (`tag` reads `tags`).
EQUALITY = ("company", "country", "workplace", "employment_type", "seniority", "tag")

PERIODS = {None: 1.0, "year": 1.0, "month": 12.0, "week": 52.0, "day": 260.0, "hour": 2080.0}
"""Periods a year: 52 weeks of 5 days of 8 hours. An unknown period counts as a year, as in SQL."""

EARTH_RADIUS = 6371.0088
"""Mean radius in kilometres."""


class Terms:
    """What filters read of a posting, folded: a few hundred bytes, while a posting as a dictionary takes several thousand.

    Each name of EQUALITY is an attribute: the folded value or None, and for `tag` all of them.
    """

    __slots__ = (
        "company", "country", "currency", "employment_type", "latitude", "location", "longitude", "pay", "seniority",
        "tag", "text", "workplace",
    )  # fmt: skip

    def __init__(self, job: Mapping[str, Any]) -> None:
        tags, location = job["tags"] or (), job["location"] or ""
        self.company = _shared(job["company"])
        self.country = _shared(job["country"])
        self.workplace = _shared(job["workplace"])
        self.employment_type = _shared(job["employment_type"])
        self.seniority = _shared(job["seniority"])
        self.tag = tuple([intern(fold(tag)) for tag in tags])
        self.location = intern(words(location))
        """The words of the location, as `words` returns them."""
        self.text = words(" ".join((job["title"] or "", job["company"] or "", *tags, location)))
        """The words of title, company, tags and location, which `q` searches."""
        bound = job["salary_max"] if job["salary_max"] is not None else job["salary_min"]
        self.pay: float | None = None if bound is None else float(bound) * PERIODS.get(job["salary_period"], 1.0)
        """The upper bound of the salary, or else the lower one, as an amount a year in `currency`."""
        self.currency: str | None = job["currency"]
        self.latitude: float | None = job["latitude"]
        self.longitude: float | None = job["longitude"]

    def values(self, name: str) -> tuple[str, ...]:
        """Return the folded values under a name of EQUALITY; a field that is null has none."""
        if name == "tag":
            return self.tag
        value: str | None = getattr(self, name)
        return () if value is None else (value,)

    def distance(self, latitude: float, longitude: float) -> float | None:
        """Return the great-circle distance from a point in kilometres, or None where the posting has no coordinates."""
        if self.latitude is None or self.longitude is None:
            return None
        return distance_km(latitude, longitude, self.latitude, self.longitude)


def _shared(value: str | None) -> str | None:
    """Return the folded value; equal values of many postings are one object."""
    return None if value is None else intern(fold(value))


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
    backfill: bool = True
    """Whether events of a backfill are wanted (`Event.is_backfill`)."""
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
            if wanted and not any(value in wanted for value in posting.values(name)):
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

    @property
    def wants_backfill(self) -> bool:
        """Whether events of a backfill are wanted, by this filter and by the one around it."""
        return self.backfill and (self.within is None or self.within.wants_backfill)

    def kind_of(self, kind: Kind, now: Terms, before: Terms) -> Kind | None:
        """Return what this filter's subscribers are told: the kind of the event, CLOSED if the posting left it, or None.

        `kind` is the event's own, and `now` and `before` are the posting after the change and before it.
        """
        if not self.matches(now):
            if kind is Kind.POSTED or before is now or not self.matches(before):
                return None
            kind = Kind.CLOSED
        return kind if self.wants(kind) else None


EVERYTHING = Filter()
