"""Lexemes: what a filter asks for is among what every posting has that it matches."""

import math
import random

from feed.database.lexemes import box_of, lexemes_of, query_of
from feed.model.filter import EARTH_RADIUS, Filter, Near, Terms, distance_km
from feed.model.posting import FILTERED


def lexemes(**fields: object) -> set[str]:
    job = dict.fromkeys(FILTERED) | {"title": "x", "company": "x", "tags": []} | fields
    return {lexeme[1:-1] for lexeme in lexemes_of(job, Terms(job)).split(" ")}


def around(near: Near, dice: random.Random) -> tuple[float, float]:
    """Return a point in a circle."""
    away, bearing = near.radius_km * math.sqrt(dice.random()) / EARTH_RADIUS, dice.uniform(0, 2 * math.pi)
    lat, lon = math.radians(near.latitude), math.radians(near.longitude)
    sine = math.sin(lat) * math.cos(away) + math.cos(lat) * math.sin(away) * math.cos(bearing)
    there = math.asin(max(-1.0, min(1.0, sine)))
    east = math.atan2(
        math.sin(bearing) * math.sin(away) * math.cos(lat), math.cos(away) - math.sin(lat) * math.sin(there)
    )
    return math.degrees(there), (math.degrees(lon + east) + 180) % 360 - 180


def test_every_point_of_a_circle_has_one_of_the_cells_that_the_circle_asks_for() -> None:
    dice = random.Random(1)
    tried = 0
    for _ in range(600):
        near = Near(
            dice.choice((90.0, -90.0, 89.95, 0.0, 52.52, dice.uniform(-90, 90))),
            dice.choice((180.0, -180.0, 179.95, 0.0, dice.uniform(-180, 180))),
            dice.choice((0.001, 5, 50, 500, 3000, 10_000, 20_040, dice.uniform(0.1, 20_000))),
        )
        asked = query_of(Filter(near=near))
        if not asked:
            assert near.radius_km > 1000
            continue
        cells = set(asked[0][1:-1].replace("'", "").split(" | "))
        south, north, _, _ = box_of(near)
        for _ in range(20):
            lat, lon = around(near, dice)
            if dice.random() < 0.2:
                lat, lon = round(lat, 1), dice.choice((round(lon, 1), 180.0, -180.0))
            if distance_km(near.latitude, near.longitude, lat, lon) > near.radius_km:
                continue
            tried += 1
            assert south <= lat <= north
            assert cells & lexemes(latitude=lat, longitude=lon), (near, lat, lon)
    assert tried > 3000


def test_pay_has_the_lexeme_of_every_minimum_that_it_reaches() -> None:
    for pay in (0.0, 12.5, 4096.0, 5792.618, 60_000.0, 90_000.01, 1e6, 7e6, 2e15):
        held = lexemes(salary_max=pay, currency="EUR")
        for share in (0.0, 0.5, 0.99, 1.0):
            (asked,) = query_of(Filter(salary_min=pay * share, currency=("EUR",)))
            assert asked[2:-2] in held


def test_a_minimum_far_above_a_pay_asks_for_what_it_has_not() -> None:
    (asked,) = query_of(Filter(salary_min=90_000.0, currency=("EUR",)))
    assert asked[2:-2] not in lexemes(salary_max=60_000.0, currency="EUR")
    assert asked[2:-2] not in lexemes(salary_max=200_000.0, currency="USD")


def test_a_filter_within_another_asks_for_what_both_ask_for() -> None:
    inner = Filter(tag=("python",), near=Near(0.0, 0.0, 1.0))
    both = Filter(company=("acme",)).narrowed(inner)
    assert query_of(both) == query_of(Filter(company=("acme",))) + query_of(inner)
    assert query_of(both, cells=False) == ["('cacme')", "('tpython')"]
