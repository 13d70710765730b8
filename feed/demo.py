"""The demo: sample postings that come, change and close at a lively pace, through the same store as any other."""

import asyncio
import random
from datetime import UTC, datetime
from typing import Any

from feed.database.jobs import JobStore
from feed.model.posting import PostingIn
from feed.supervision import Backoff, supervised

_LONGEST_WAIT = 5.0
"""Seconds between attempts while the database is away."""

_ROLES = {
    "Software Engineer": (62, "python postgres"), "Site Reliability Engineer": (68, "kubernetes linux"),
    "Data Engineer": (64, "sql spark"), "Machine Learning Engineer": (75, "python pytorch"),
    "Product Designer": (56, "figma research"), "Frontend Developer": (58, "typescript css"),
    "Nurse Practitioner": (52, "healthcare"), "Warehouse Lead": (38, "logistics"), "Baker": (32, "food early-shift"),
    "Accountant": (50, "finance"), "Electrician": (44, "trades"), "Teacher of Mathematics": (46, "education"),
}  # fmt: skip
_COMPANIES = (
    "Nordlicht", "Acme Robotics", "Café Soleil", "Kestrel Health", "Blue Harbor Logistics", "Ōtani Systems",
    "Grünwald & Söhne",    "Paperplane", "Quarry Labs", "Meridian Bank", "Lúa Studio", "Open Fields",
)  # fmt: skip
_PLACES = (
    ("Berlin, Germany", "Germany", "EUR", 52.52, 13.405), ("München, Germany", "Germany", "EUR", 48.137, 11.575),
    ("Paris, France", "France", "EUR", 48.857, 2.352), ("London, UK", "United Kingdom", "GBP", 51.507, -0.128),
    ("New York, NY", "United States", "USD", 40.713, -74.006), ("Toronto, ON, Canada", "Canada", "CAD", 43.653, -79.383),
    ("São Paulo, Brazil", "Brazil", "BRL", -23.551, -46.633), ("Zürich, Switzerland", "Switzerland", "CHF", 47.377, 8.541),
)  # fmt: skip
_LEVELS = ("junior", "mid", "senior", "lead")
_WORKPLACES = ("onsite", "hybrid", "remote")


class Demo:
    """Posts about one change a second; keeps at most 200 of its postings open."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._random = random.Random()
        self._backoff = Backoff(_LONGEST_WAIT)
        self._open: list[dict[str, Any]] = []
        self._series = f"{datetime.now(UTC):%y%m%d%H%M%S}"
        self._count = 0

    async def run(self) -> None:
        """Post until cancelled."""
        await supervised("demo", self._post, self._backoff)

    async def _post(self) -> None:
        while True:
            await self._store.write([PostingIn.model_validate(self._change())])
            self._backoff.reset()
            await asyncio.sleep(self._random.expovariate(1.2))

    def _change(self) -> dict[str, Any]:
        dice = self._random.random()
        if self._open and (dice < 0.1 or len(self._open) > 200):
            gone = self._open.pop(self._random.randrange(len(self._open)))
            return gone | {"closed_at": datetime.now(UTC).isoformat()}
        if self._open and dice < 0.25:
            changed = self._random.choice(self._open)
            changed["salary_max"] += 1000
            changed["workplace"] = self._random.choice(_WORKPLACES)
            return changed
        self._open.append(self._posting())
        return self._open[-1]

    def _posting(self) -> dict[str, Any]:
        choose = self._random.choice
        role, (pay, tags) = choose(list(_ROLES.items()))
        location, country, currency, latitude, longitude = choose(_PLACES)
        company, level = choose(_COMPANIES), choose(_LEVELS)
        self._count += 1
        low = 1000 * round(pay * (0.8 + 0.25 * _LEVELS.index(level)))
        return {
            "source": "demo",
            "external_id": f"{self._series}-{self._count}",
            "title": f"{level.capitalize()} {role}" if level != "mid" else role,
            "company": company,
            "url": f"https://jobs.example/{self._series}/{self._count}",
            "location": location,
            "country": country,
            "workplace": choose(_WORKPLACES),
            "employment_type": choose(("full-time", "part-time", "contract")),
            "seniority": level,
            "tags": tags.split(),
            "salary_min": low,
            "salary_max": low + 1000 * self._random.randint(5, 25),
            "currency": currency,
            "salary_period": "year",
            "latitude": latitude,
            "longitude": longitude,
            "description": f"{company} is looking for a {role.lower()} in {location}. This is a sample posting.",
        }
