"""A table full of postings as boards have them: few words, places and companies are frequent, and many are rare."""

import itertools
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import asyncpg

COLUMNS = (
    "source", "external_id", "title", "company", "url", "location", "country", "workplace", "employment_type", "seniority",
    "tags", "salary_min", "salary_max", "currency", "salary_period", "latitude", "longitude", "posted_at", "description",
)  # fmt: skip
_NONE = "\\N"
_PIECE = 1_000
"""Rows in one piece of COPY."""
_DAYS = 90
"""Days in which all postings were posted."""

_ROLES = (
    "Software Engineer", "Site Reliability Engineer", "Data Engineer", "Machine Learning Engineer", "Product Designer",
    "Frontend Developer", "Backend Developer", "Nurse Practitioner", "Warehouse Lead", "Baker", "Accountant", "Electrician",
    "Teacher of Mathematics", "Account Executive", "Customer Success Manager", "Product Manager", "Security Analyst",
    "Firmware Engineer", "C++ Developer", "Office Manager", "Truck Driver", "Research Scientist", "Recruiter", "Cook",
)  # fmt: skip
_ADDED = (
    "",
    "",
    "",
    " (m/f/d)",
    " - New Grad 2026",
    ", Platform",
    ", Payments",
    ", Growth",
    " II",
    " / Night Shift",
    ", R&D",
)
_LEVELS = ("junior", "mid", "senior", "lead", "staff")
_FIRST = (
    "Blue", "Open", "North", "Nova", "Quarry", "Café", "Ōtani", "Grünwald", "Meridian", "Kestrel", "Lúa", "Paper", "Iron",
    "Solar", "Delta", "Prime", "Vela", "Orbit", "Atlas", "Harbor",
)  # fmt: skip
_SECOND = ("Labs", "Systems", "Health", "Bank", "Works", "Robotics", "Foods", "Media", "Logistics", "Energy")
_CITIES = (
    ("New York, NY", "United States", "USD", 40.713, -74.006), ("Berlin, Germany", "Germany", "EUR", 52.52, 13.405),
    ("San Francisco, CA", "United States", "USD", 37.77, -122.42), ("London, UK", "United Kingdom", "GBP", 51.507, -0.128),
    ("München, Germany", "Germany", "EUR", 48.137, 11.575), ("Paris, France", "France", "EUR", 48.857, 2.352),
    ("Toronto, ON, Canada", "Canada", "CAD", 43.653, -79.383), ("Austin, TX", "United States", "USD", 30.27, -97.74),
    ("São Paulo, Brazil", "Brazil", "BRL", -23.551, -46.633), ("Zürich, Switzerland", "Switzerland", "CHF", 47.377, 8.541),
    ("New Orleans, LA", "United States", "USD", 29.95, -90.07), ("York, UK", "United Kingdom", "GBP", 53.96, -1.08),
    ("Lyon, France", "France", "EUR", 45.76, 4.84), ("Manchester, UK", "United Kingdom", "GBP", 53.48, -2.24),
)  # fmt: skip
_TAGS = (
    "python", "sql", "java", "react", "aws", "kubernetes", "linux", "typescript", "sales", "healthcare", "logistics", "food",
    "finance", "education", "go", "rust", "c++", "visa", "remote-first", "night",
)  # fmt: skip
_OLD = ("Reykjavík, Iceland", "Iceland", "ISK", 64.147, -21.94)
OLD_SHARE = 0.05
"""The share of the postings that came first and are the only ones in Iceland: frequent, and far from the newest."""


def _falling(count: int, power: float) -> list[float]:
    """Cumulative weights, so that the first of `count` values is the most frequent one."""
    return list(itertools.accumulate(1 / (rank + 2) ** power for rank in range(count)))


def rows(count: int) -> Iterator[Sequence[object]]:
    """Return postings in the order of COLUMNS, always the same ones."""
    dice = random.Random(7)
    companies = [f"{one} {two}" for one in _FIRST for two in _SECOND] + [
        f"{one} {n}" for n in range(500) for one in _FIRST
    ]
    towns = [
        (f"{name} Township, {state}", "United States", "USD", dice.uniform(26, 48), dice.uniform(-120, -75))
        for name in ("Spring", "Union", "Lake", "Cedar", "Green", "Fair", "Mill", "Oak")
        for state in ("TX", "CA", "OH", "PA", "NY", "IL", "FL", "GA", "NC", "MI")
    ]  # fmt: skip
    cities = [*_CITIES, *towns]
    tags = [*_TAGS, *(f"skill-{number}" for number in range(500))]
    by_company, by_city, by_tag = _falling(len(companies), 0.9), _falling(len(cities), 0.8), _falling(len(tags), 0.9)
    now = datetime(2026, 11, 20, tzinfo=UTC)
    for number in range(count):
        place = _OLD if number < count * OLD_SHARE else dice.choices(cities, cum_weights=by_city)[0]
        location, country, currency, latitude, longitude = place
        company = dice.choices(companies, cum_weights=by_company)[0]
        level = dice.choice(_LEVELS)
        title = (f"{level.capitalize()} " if dice.random() < 0.3 else "") + dice.choice(_ROLES) + dice.choice(_ADDED)
        some = set(dice.choices(tags, cum_weights=by_tag, k=dice.randint(0, 5)))
        low = 1000 * round(dice.lognormvariate(4.1, 0.4))
        paid, hourly, known = dice.random() < 0.6, dice.random() < 0.1, dice.random() < 0.85
        unit = 2080 if hourly else 1
        high = low + 1000 * dice.randint(5, 40)
        ago = timedelta(days=_DAYS * (count - number) / count * dice.random() ** 0.3)
        yield (
            "bench", number, title, company, f"https://jobs.example/{number}", location, country,
            dice.choice(("onsite", "hybrid", "remote", _NONE)), dice.choice(("full-time", "part-time", "contract")), level,
            "{" + ",".join(f'"{tag}"' for tag in some) + "}",
            round(low / unit, 2) if paid else _NONE, round(high / unit, 2) if paid else _NONE, currency if paid else _NONE,
            ("hour" if hourly else "year") if paid else _NONE, latitude if known else _NONE, longitude if known else _NONE,
            (now - ago).isoformat(), f"{company} is looking for a {title} in {location}. This is a sample posting.",
        )  # fmt: skip


async def load(dsn: str, count: int) -> None:
    """Put postings into an empty table without events, and have them indexed as after an upgrade."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "feed"})

    async def pieces() -> AsyncIterator[bytes]:
        every = rows(count)
        while piece := list(itertools.islice(every, _PIECE)):
            yield "".join("\t".join(map(str, row)) + "\n" for row in piece).encode()

    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.copy_to_table("job", source=pieces(), columns=COLUMNS, timeout=1200)
        await connection.execute("DROP INDEX search_lexemes_open, search_lexemes_closed")
        await connection.execute("UPDATE search_state SET filled = 0")
        await connection.execute("VACUUM ANALYZE job", timeout=1200)
    finally:
        connection.terminate()
