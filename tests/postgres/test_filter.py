"""A filter means the same in memory, where streams are matched, and in SQL, where lists are read."""

import dataclasses
import itertools
import math
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from feed.database import lists
from feed.database.connect import pool
from feed.database.jobs import JobStore
from feed.database.log import Log
from feed.errors import Invalid
from feed.fanout.encoded_event import EncodedEvent
from feed.model.event import Kind
from feed.model.filter import PERIODS, Filter, Near, Terms, distance_km
from feed.model.page import Page
from feed.model.posting import FILTERED, PostingIn
from feed.model.query import FilterQuery
from tests.conftest import make_settings
from tests.postgres.events import Connection, advanced
from tests.postgres.indexing import index, indexed

once = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)

WORDS = (
    "Berlin", "berlin", "Berliner", "BÉRLIN", "München", "Munchen", "Mu\u0308nchen", "Straße", "STRASSE", "İstanbul",
    "istanbul", "ISTANBUL", "ıstanbul", "C++", "c#", "C", "Node.js", "node", "R&D", "Ærø", "aero", "Þór", "東京", "ΟΔΟΣ",
    "οδός", "Москва", "МОСКВА", "ﬁnance", "finance", "K", "\u212a", "3D", "№", "½",
)  # fmt: skip
TAGS = ('say "go"', "a\\b", "100%", "a_b", "a%b", "axb", "tab\there", "[x]", "/")
BETWEEN = (" ", ", ", "-", "/", ".", "", "\u00a0", "\u2013", "\u3000", " (", "&", "\u200b", "・", "\u0301")
POINTS = (
    (52.52, 13.405), (52.5201, 13.405), (48.1375, 11.575), (-33.8688, 151.2093), (0.0, 180.0), (0.0, -180.0), (90.0, 0.0),
    (-90.0, 12.5), (0.0, 0.0), (37.0, -122.123456789),
)  # fmt: skip
PAYS = (0, 0.01, 12.5, 30, 230.77, 1250, 5000, 5000.01, 60000, 59999.99, 62400, 999_999_999_999)
RADII = sorted({distance_km(*a, *b) for a in POINTS for b in POINTS if a != b})

text = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(BETWEEN)), min_size=1, max_size=3).map(
    lambda parts: "".join(word + gap for word, gap in parts)
)
pay = st.none() | st.sampled_from(PAYS)
currency = st.sampled_from(("EUR", "USD", "GBP"))


def maybe(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Mostly there."""
    return st.one_of(values, values, values, st.none())


@st.composite
def postings(draw: st.DrawFn) -> PostingIn:
    low, high = draw(pay), draw(pay)
    if low is not None and high is not None and low > high:
        low, high = high, low
    point = draw(maybe(st.sampled_from(POINTS)))
    latitude, longitude = point if point is not None else (None, None)
    return PostingIn.model_validate(
        {
            "title": draw(text.filter(str.strip)), "company": draw(st.sampled_from(WORDS) | text.filter(str.strip)), "url": "https://acme.example",
            "location": draw(maybe(text)), "country": draw(maybe(st.sampled_from(WORDS))),
            "workplace": draw(maybe(st.sampled_from(("onsite", "hybrid", "remote")))),
            "employment_type": draw(maybe(st.sampled_from(("full-time", "Full-Time", "full time")))),
            "seniority": draw(maybe(st.sampled_from(("Senior", "sénior", "junior", "")))),
            "tags": draw(st.lists(st.sampled_from(WORDS) | st.sampled_from(TAGS) | st.just(""), max_size=3)),
            "salary_min": low, "salary_max": high, "currency": draw(maybe(currency)),
            "salary_period": draw(st.sampled_from(list(PERIODS))),
            "latitude": latitude, "longitude": longitude,
        }
    )  # fmt: skip


radius = st.sampled_from(RADII)
near = st.tuples(
    st.sampled_from(POINTS),
    radius | radius.map(lambda km: math.nextafter(km, 0)) | st.sampled_from((0.001, 50.0, 20_040.0)),
).map(lambda drawn: Near(*drawn[0], drawn[1]))
bound = st.builds(
    lambda value, times, shift: value * times + shift,
    st.sampled_from(PAYS), st.sampled_from([*PERIODS.values()]), st.sampled_from((0, 0.01, -0.01)),
).filter(lambda value: value >= 0)  # fmt: skip


NAMES = (
    "company", "country", "location", "workplace", "employment_type", "seniority", "tag", "salary", "q", "currency", "near",
)  # fmt: skip


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    """One or two names, so that most find something."""
    some = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4)
    phrases = st.lists(text | st.sampled_from(WORDS), min_size=1, max_size=3)
    asked: dict[str, object] = {}
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=2, unique=True))
    for name in names:
        match name:
            case "company" | "location":
                asked[name] = draw(phrases)
            case "country":
                asked[name] = draw(some)
            case "tag":
                asked[name] = draw(st.lists(st.sampled_from(WORDS + TAGS), min_size=1, max_size=4))
            case "workplace":
                asked[name] = draw(st.lists(st.sampled_from(("onsite", "hybrid", "remote")), min_size=1))
            case "employment_type":
                asked[name] = ["FULL-TIME"]
            case "seniority":
                asked[name] = ["senior"]
            case "q":
                word = st.sampled_from(WORDS)
                asked[name] = draw(text | word | word.map(lambda t: t[:3]) | word.map(lambda t: t[:1]))
            case "currency":
                asked[name] = draw(st.lists(st.sampled_from(("eur", "USD", "Gbp")), min_size=1))
            case "salary":
                asked |= {"salary_min": draw(bound), "currency": draw(st.lists(currency, min_size=1))}
    wanted = FilterQuery.model_validate(asked).canonical()
    return dataclasses.replace(wanted, near=draw(near)) if "near" in names else wanted


PLANS = {
    "scan": {},
    "changed": {},
    "walk": {},
    "gather some": {"_GLANCE": 0, "_WALK": {"arrived": 0, "posted": 0}},
    "gather all": {"_GLANCE": 0, "_WALK": {"arrived": 0, "posted": 0}, "_GATHER": 0},
}
"""Ways in which a list is found, and the bounds that lead to each."""

PAGES = (Page(open=None, limit=1000), Page(limit=1000, sort="posted"))


def drawn(number: int) -> tuple[list[PostingIn], list[Filter]]:
    """Postings and `number` filters, some of these inside another one, as a credential's."""
    given_postings: list[PostingIn] = []
    wanted: dict[Filter, None] = {}

    @seed(1)
    @settings(once, max_examples=200)
    @given(postings())
    def draw_posting(posting: PostingIn) -> None:
        given_postings.append(posting)

    @seed(2)
    @settings(once, max_examples=number)
    @given(st.data())
    def draw_filter(data: st.DataObject) -> None:
        try:
            wanted[data.draw(filters())] = None
        except Invalid:
            pass  # nothing but separators

    draw_posting()
    draw_filter()
    assert len(given_postings) >= 150
    assert len(wanted) >= number / 2
    plain = list(wanted)
    return given_postings, [
        *plain, *(one.narrowed(other) for one, other in zip(plain[::5], plain[1::5], strict=False))
    ]  # fmt: skip


async def test_streams_and_lists_agree_on_every_posting_and_filter(
    database: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_postings, wanted = drawn(300)
    found = 0
    async with pool(make_settings(dsn).database, dsn) as connections:
        store = JobStore(connections)
        await store.write(given_postings)
        jobs = {event.job["id"]: event.job for event in await advanced(database)}
        streamed = {job: Terms(fields) for job, fields in jobs.items()}
        assert len(streamed) == len(given_postings)
        for plan, bounds in PLANS.items():
            with monkeypatch.context() as patch:
                for name, value in bounds.items():
                    patch.setattr(lists, name, value)
                if plan == "scan":
                    await database.execute("UPDATE search_state SET filled = 0")
                elif plan == "walk":
                    await index(database, dsn)
                    assert len(await indexed(database)) == len(streamed)
                else:
                    await database.execute("UPDATE search_state SET filled = NULL")
                for number, one in enumerate(wanted):
                    listing = await store.list(one, PAGES[number % 2])
                    listed = {orjson.loads(job)["id"] for job in listing.jobs}
                    matched = {job for job, terms in streamed.items() if one.matches(terms)}
                    assert listed == matched, (plan, one, [jobs[job] for job in listed ^ matched])
                    found += bool(matched)
    assert found > len(PLANS) * len(wanted) / 3  # the comparison was of something


async def test_what_the_log_leaves_out_for_a_filter_no_subscriber_of_it_would_get(
    database: Connection, dsn: str
) -> None:
    given_postings, wanted = drawn(300)
    kinds = itertools.cycle([(), (Kind.POSTED,), (), (Kind.CLOSED,), (Kind.UPDATED,), (Kind.CLOSED, Kind.UPDATED)])
    wanted = [dataclasses.replace(one, event=some) for one, some in zip(wanted, kinds, strict=False)]
    wanted += [Filter(event=(Kind.UPDATED,)), Filter(event=(Kind.CLOSED,)), Filter(), Filter(company=("berlin",))]
    wanted += [dataclasses.replace(one, backfill=False) for one in wanted[::3]]
    wanted += [one.narrowed(Filter(backfill=False)) for one in wanted[1:10]]
    async with pool(make_settings(dsn).database, dsn) as connections:
        await JobStore(connections).write(given_postings[::2])
        async with database.transaction():
            await database.execute("SELECT set_config('feed.backfill', 'on', true)")
            await database.executemany(
                "INSERT INTO job (title, company, url, closed_at) VALUES ('x', $1, 'https://acme.example', $2)",
                [("Berlin", None), ("Berlin", datetime(2026, 1, 1, tzinfo=UTC)), ("Acme", None)],
            )
        await JobStore(connections).write(given_postings[1::2])
        # Every posting becomes another one; then some change what no filter reads, and some go.
        names = ", ".join(FILTERED)
        await database.execute(
            f"UPDATE job j SET ({names}) = (SELECT {names} FROM job o WHERE o.id = j.id % (SELECT max(id) FROM job) + 1)"
        )
        await database.execute("UPDATE job SET url = url || '/1' WHERE id % 5 = 0")
        await database.execute("UPDATE job SET closed_at = now() WHERE id % 5 = 1")
        await database.execute("DELETE FROM job WHERE id % 5 = 2")
        await database.execute("SELECT canary()")
        events = [EncodedEvent(1, event) for event in await advanced(database)]
        assert len(events) > 2 * len(given_postings)
        assert sum(event.is_backfill for event in events) == 3
        log, head = Log(connections), events[-1].position
        told = read = 0
        for one in wanted:
            found = await log.find(3, head, one)
            assert (found.floor, found.head) == (0, head)
            assert [event.position for event in found.events] == sorted({event.position for event in found.events})
            frames = {event.position: EncodedEvent(1, event).frame_for(one) for event in found.events}
            expected = {
                event.position: frame for event in events[3:] if (frame := event.frame_for(one)) is not None
            }  # fmt: skip
            assert {position: frame for position, frame in frames.items() if frame is not None} == expected, one
            told += len(expected)
            read += len(frames)
    assert told > len(wanted)  # the comparison was of something
    assert read < len(events) * len(wanted) / 2  # and something was left out
