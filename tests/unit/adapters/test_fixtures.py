"""Each adapter makes of a board in its source's shape what the board says, and reports what cannot be a posting."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import httpx
import orjson
import pytest

from feed.errors import ConfigurationError
from feed.ingest.adapter import Answer, BadPosting, Found, Malformed
from feed.ingest.adapters import adapter_names, adapter_of
from feed.ingest.adapters.mapped import Mapped
from tests.unit.adapters.reading import BOARDS, Asked, fixture, given, read


def named(bad: BadPosting) -> list[str]:
    """Return the fields that a bad posting is bad for."""
    return [fault.field for fault in bad.faults]


def test_greenhouse() -> None:
    found = read("greenhouse", fixture("greenhouse.json"))
    first, second = found.postings
    assert given(first) == {
        "source": "greenhouse:kestrel",
        "external_id": "4000101",
        "title": "Site Reliability Engineer",
        "company": "Kestrel Health",
        "url": "https://boards.greenhouse.example/kestrel/jobs/4000101",
        "location": "Berlin, Germany; Munich, Germany",
        "country": "Germany",
        "tags": ["Engineering", "Platform"],
        "salary_min": Decimal(70000),
        "salary_max": Decimal("90000.5"),
        "currency": "EUR",
        "posted_at": datetime(2026, 10, 30, 9, 15, tzinfo=timezone(timedelta(hours=-4))),
    }
    assert first.description_html == "<p>Keep our <strong>services</strong> up &amp; running.</p>"
    assert first.description == "Keep our services up & running."
    assert (second.title, second.workplace, second.posted_at) == ("Nurse Practitioner", "remote", None)
    assert (second.location, second.country) == ("Remote - US; Remote - Canada", "United States")
    assert [(one.external_id, named(one), one.faults[0].index) for one in found.bad] == [
        ("4000103", ["title", "url"], 2)
    ]
    assert (found.complete, found.company) == (True, "Kestrel Health")


def test_lever() -> None:
    jobs = orjson.loads(fixture("lever.json"))

    def answer(url: httpx.URL) -> bytes:
        return orjson.dumps(jobs[int(url.params["skip"]) :][:1])  # smaller pages than were asked for

    found = read("lever", answer)
    first, second = found.postings
    assert given(first) == {
        "source": "lever:paperplane",
        "external_id": "5f1c0c2e-0000-4000-8000-000000000001",
        "title": "Data Engineer",
        "company": "paperplane",
        "url": "https://jobs.lever.example/paperplane/5f1c0c2e-0000-4000-8000-000000000001",
        "location": "Toronto, Canada; Montréal, Canada",
        "country": "Canada",
        "workplace": "hybrid",
        "employment_type": "full-time",
        "tags": ["Data", "Pipelines"],
        "salary_min": Decimal(95000),
        "salary_max": Decimal(120000),
        "currency": "CAD",
        "salary_period": "year",
        "posted_at": datetime(2026, 10, 30, 8, tzinfo=UTC),
    }
    assert first.description == "Move data.\n\nWhat you bring\n\n- SQL\n- Patience\n\nWe are kind."
    assert (second.employment_type, second.workplace, second.salary_min) == ("internship", None, None)
    assert second.description == "Answer questions.\nBe patient."
    assert (found.complete, found.company, found.bad) == (True, None, ())


def test_lever_of_the_european_union_has_names_of_its_own() -> None:
    assert read("lever-eu", fixture("lever.json")).postings[0].source == "lever-eu:paperplane"


def test_lever_without_paging_is_read_once() -> None:
    """A mirror may be a file, which knows no `skip`."""
    found = read("lever", fixture("lever.json"))
    assert (len(found.postings), found.complete) == (2, True)


def test_ashby() -> None:
    found = read("ashby", fixture("ashby.json"))
    first, third = found.postings  # the second is not listed
    assert given(first) == {
        "source": "ashby:quarry",
        "external_id": "aa000000-0000-4000-8000-000000000001",
        "title": "Machine Learning Engineer",
        "company": "quarry",
        "url": "https://jobs.ashbyhq.example/quarry/aa1",
        "location": "Paris; Lyon",
        "country": "France",
        "workplace": "hybrid",
        "employment_type": "full-time",
        "tags": ["Research", "Vision"],
        "salary_min": Decimal(60000),
        "salary_max": Decimal(90000),
        "currency": "EUR",
        "salary_period": "year",
        "posted_at": datetime(2026, 11, 2, 8, 30, tzinfo=UTC),
    }
    assert (third.workplace, third.employment_type, third.salary_min) == ("remote", "part-time", Decimal("31.5"))
    assert (third.salary_max, third.salary_period) == (None, "hour")
    assert (found.complete, found.bad) == (True, ())


def test_smartrecruiters() -> None:
    found = read("smartrecruiters", fixture("smartrecruiters.json"))
    first, second = found.postings
    assert given(first) == {
        "source": "smartrecruiters:BlueHarbor",
        "external_id": "744000000000001",
        "title": "Warehouse Lead",
        "company": "Blue Harbor Logistics",
        "url": "https://jobs.smartrecruiters.com/BlueHarbor/744000000000001",
        "location": "Rotterdam, Netherlands",
        "country": "Netherlands",
        "employment_type": "full-time",
        "seniority": "mid-senior level",
        "tags": ["Operations"],
        "posted_at": datetime(2026, 11, 10, 6, tzinfo=UTC),
    }
    assert (second.workplace, second.employment_type, second.seniority) == ("remote", "internship", "junior")
    assert (found.complete, found.company) == (True, "Blue Harbor Logistics")
    assert adapter_of("smartrecruiters").off


@pytest.mark.parametrize(
    ("held", "told", "complete"), [(250, 250, True), (250, 251, False), (120, 90, False), (0, 0, True)]
)
def test_smartrecruiters_is_complete_only_if_as_many_came_as_there_are(held: int, told: int, complete: bool) -> None:
    job = orjson.loads(fixture("smartrecruiters.json"))["content"][0]

    def answer(url: httpx.URL) -> bytes:
        start, end = int(url.params["offset"]), min(held, int(url.params["offset"]) + int(url.params["limit"]))
        content = [{**job, "id": str(place)} for place in range(start, end)]
        return orjson.dumps({"totalFound": told, "content": content})

    found = read("smartrecruiters", answer)
    assert found.complete is complete
    assert len(found.postings) == min(held, 100 if told == 90 else held)


def test_smartrecruiters_is_not_complete_when_a_page_repeats_postings() -> None:
    job = orjson.loads(fixture("smartrecruiters.json"))["content"][0]
    found = read("smartrecruiters", orjson.dumps({"totalFound": 200, "content": [job] * 100}))
    assert (len(found.postings), found.complete) == (1, False)


def test_recruitee() -> None:
    found = read("recruitee", fixture("recruitee.json"))
    first, second = found.postings
    assert given(first) == {
        "source": "recruitee:gruenwald",
        "external_id": "900001",
        "title": "Bäcker:in",
        "company": "Grünwald & Söhne",
        "url": "https://gruenwald.recruitee.example/o/baecker",
        "location": "München, Germany; Augsburg, Germany",
        "country": "Germany",
        "workplace": "onsite",
        "employment_type": "part-time",
        "tags": ["Backstube"],
        "salary_min": Decimal("16.5"),
        "salary_max": Decimal(19),
        "currency": "EUR",
        "salary_period": "hour",
        "posted_at": datetime(2026, 10, 30, 8, tzinfo=UTC),
        "valid_through": datetime(2026, 12, 31, 23, tzinfo=UTC),
    }
    assert first.description is not None and "Backen" in first.description and "aufstehen" in first.description
    assert (second.country, second.workplace, second.employment_type) == (None, "hybrid", "contract")
    assert (second.description, second.currency, second.valid_through) == (None, None, None)


def test_personio() -> None:
    found = read("personio", fixture("personio.xml"), "text/xml")
    first, second = found.postings
    assert given(first) == {
        "source": "personio:nordlicht",
        "external_id": "1200001",
        "title": "Elektriker (m/w/d)",
        "company": "Nordlicht GmbH",
        "url": "https://nordlicht.jobs.personio.de/job/1200001",
        "location": "Kiel, Germany; Lübeck, Germany",
        "country": "Germany",
        "employment_type": "full-time",
        "seniority": "junior",
        "tags": ["Energie & Netze"],
        "posted_at": datetime(2026, 10, 30, 8, tzinfo=timezone(timedelta(hours=1))),
    }
    assert first.description is not None and "Aufgaben" in first.description and "Sorgfalt" in first.description
    assert (second.workplace, second.employment_type) == ("remote", "internship")
    assert [(one.external_id, named(one)) for one in found.bad] == [(None, ["external_id", "url"])]
    assert (found.complete, found.company, adapter_of("personio").gap) == (True, None, 3)


def test_remotive() -> None:
    found = read("remotive", fixture("remotive.json"))
    first, second = found.postings
    assert given(first) == {
        "source": "remotive:all",
        "external_id": "1900001",
        "title": "Product Designer",
        "company": "Lúa Studio",
        "url": "https://remotive.example/remote-jobs/design/product-designer-1900001",
        "location": "Brazil",
        "country": "Brazil",
        "workplace": "remote",
        "employment_type": "full-time",
        "tags": ["Design", "figma", "research"],
        "salary_min": Decimal(40000),
        "salary_max": Decimal(50000),
        "currency": "USD",
        "salary_period": "year",
        "posted_at": datetime(2026, 11, 15, 10, 23, 26, tzinfo=UTC),
    }
    assert (second.country, second.salary_min, second.employment_type) == (None, None, None)
    terms = adapter_of("remotive").terms
    assert (terms.min_interval * 4, terms.syndicate) == (86400, False)
    assert terms.attribution is not None and "remotive.com" in terms.attribution
    assert (found.complete, found.company, adapter_of("remotive").rolling) == (False, None, True)
    assert adapter_of("remotive").address("design").endswith("?category=design")


def test_remoteok() -> None:
    found = read("remoteok", fixture("remoteok.json"))
    first, second = found.postings
    assert given(first) == {
        "source": "remoteok:all",
        "external_id": "500001",
        "title": "Frontend Developer",
        "company": "Ōtani Systems",
        "url": "https://remoteok.example/remote-jobs/500001",
        "location": "Worldwide",
        "workplace": "remote",
        "tags": ["typescript", "css"],
        "salary_min": Decimal(60000),
        "salary_max": Decimal(90000),
        "currency": "USD",
        "salary_period": "year",
        "posted_at": datetime(2026, 11, 20, 16, tzinfo=UTC),
    }
    assert (second.external_id, second.salary_min, second.currency, second.tags) == ("500002", None, None, [])
    assert (found.bad, found.complete, adapter_of("remoteok").rolling) == ((), False, True)
    assert adapter_of("remoteok").terms.attribution


def test_rss() -> None:
    found = read("rss", fixture("feed.rss"), "text/xml")
    first, second = found.postings
    assert given(first) == {
        "source": "rss:https://meridian.example/feed",
        "external_id": "meridian-1",
        "title": "Accountant & Controller",
        "company": "Meridian Bank",
        "url": "https://meridian.example/jobs/1",
        "location": "Zürich, Switzerland",
        "country": "Switzerland",
        "employment_type": "full-time",
        "tags": ["Finance"],
        "posted_at": datetime(2026, 10, 30, 8, tzinfo=UTC),
    }
    assert first.description == "Count the money."
    assert (second.external_id, second.company) == ("https://meridian.example/jobs/2", "Meridian Bank: jobs")
    assert [(one.external_id, named(one)) for one in found.bad] == [("meridian-3", ["url"])]
    assert (found.complete, adapter_of("rss").rolling) == (False, True)


def test_atom() -> None:
    [posting] = read("rss", fixture("feed.atom"), "application/atom+xml").postings
    assert given(posting) == {
        "source": "rss:https://meridian.example/feed",
        "external_id": "urn:uuid:5a000000-0000-4000-8000-000000000001",
        "title": "Cook of soups",
        "company": "Café Soleil",
        "url": "https://soleil.example/jobs/cook",
        "posted_at": datetime(2026, 10, 30, 8, tzinfo=UTC),
    }


def test_jsonld() -> None:
    """In a graph and in a bare array, with raw line breaks and tabs in texts, beside a script that is broken."""
    found = read("jsonld", fixture("page.html"), "text/html")
    teacher, tutor = found.postings
    assert given(teacher) == {
        "source": "jsonld:https://fields.example/jobs/",
        "external_id": "T-17",
        "title": "Teacher of Mathematics",
        "company": "Open Fields",
        "url": "https://fields.example/jobs/t-17",
        "location": "Leeds, West Yorkshire, United Kingdom; York, United Kingdom",
        "country": "United Kingdom",
        "employment_type": "full-time",
        "salary_min": Decimal(31000),
        "salary_max": Decimal("42000.5"),
        "currency": "GBP",
        "salary_period": "year",
        "posted_at": datetime(2026, 10, 30, tzinfo=UTC),
        "valid_through": datetime(2026, 12, 1, 23, 59, 59, tzinfo=UTC),
    }
    assert given(tutor) == {
        "source": "jsonld:https://fields.example/jobs/",
        "external_id": "https://fields.example/jobs/#Tutor",
        "title": "Tutor",
        "company": "Open Fields",
        "url": "https://fields.example/jobs/",
        "location": "Ireland",
        "country": "Ireland",
        "workplace": "remote",
        "employment_type": "PER_DIEM",
        "salary_min": Decimal(25),
        "salary_max": Decimal(25),
        "currency": "EUR",
        "salary_period": "hour",
    }
    assert (found.complete, found.company, adapter_of("jsonld").rolling) == (False, None, True)


def test_json_by_a_mapping() -> None:
    found = read("json", fixture("other.json"))
    first, second = found.postings
    assert given(first) == {
        "source": "json:https://quarry.example/api#/data/jobs",
        "external_id": "7",
        "title": "Carpenter",
        "company": "Quarry Labs",
        "url": "https://quarry.example/7",
    }
    assert (second.company, second.external_id) == ("Quarry", "8")
    assert [(one.external_id, named(one)) for one in found.bad] == [("10", ["title"])]
    assert found.complete


def test_json_without_an_id_is_known_by_its_url() -> None:
    mapped = adapter_of(
        "json", fixture("other.toml").decode().replace("external_id", "# external_id").replace("active", "# active")
    )
    assert isinstance(mapped, Mapped)
    jobs = [{"job": {"title": "Mason"}, "links": [{"href": "https://quarry.example/8"}]}]
    [posting] = mapped.found("x", Answer("https://quarry.example/", orjson.dumps(jobs), "", {})).postings
    assert posting.external_id == posting.url == "https://quarry.example/8"


def test_json_finds_the_one_list_and_asks_where_there_are_several() -> None:
    def at(board: str, body: object) -> Found:
        mapped = adapter_of("json", fixture("other.toml").decode())
        assert isinstance(mapped, Mapped)
        return mapped.found(board, Answer("https://quarry.example/api", orjson.dumps(body), "", {}))

    whole = orjson.loads(fixture("other.json"))["data"]
    for body in (whole["jobs"], {"results": whole["jobs"], "count": 4, "tags": ["a"]}):
        assert len(at("https://quarry.example/api", body).postings) == 2
    assert at("https://quarry.example/api", {"results": []}).postings == ()
    with pytest.raises(Malformed, match=r"lists of objects: cities, jobs\); name it in a fragment"):
        at("https://quarry.example/api", whole)
    assert (
        len(at("https://quarry.example/api#/cities%20%26/0/a~1b", {"cities &": [{"a/b": whole["jobs"]}]}).postings) == 2
    )
    reader = adapter_of("json", fixture("other.toml").decode())
    assert reader.address(BOARDS["json"]) == "https://quarry.example/api"
    with pytest.raises(Malformed, match="at /data/jobs there must be a list, and it is missing"):
        read("json", b"{}")
    further = orjson.loads(fixture("other.json")) | {"next": "page/2"}
    assert not read("json", orjson.dumps(further)).complete


ADDRESSES = {
    "greenhouse": "https://boards-api.greenhouse.io/v1/boards/kestrel/jobs?content=true",
    "lever": "https://api.lever.co/v0/postings/paperplane?mode=json",
    "lever-eu": "https://api.eu.lever.co/v0/postings/paperplane?mode=json",
    "ashby": "https://api.ashbyhq.com/posting-api/job-board/quarry?includeCompensation=true",
    "recruitee": "https://gruenwald.recruitee.com/api/offers/",
    "personio": "https://nordlicht.jobs.personio.de/xml?language=en",
    "smartrecruiters": "https://api.smartrecruiters.com/v1/companies/BlueHarbor/postings",
    "remotive": "https://remotive.com/api/remote-jobs",
    "remoteok": "https://remoteok.com/api",
    "rss": "https://meridian.example/feed",
    "jsonld": "https://fields.example/jobs/",
    "json": "https://quarry.example/api",
}


def test_every_adapter_asks_politely_at_the_address_of_its_source() -> None:
    assert set(adapter_names()) == set(ADDRESSES)
    for name, address in ADDRESSES.items():
        reader = adapter_of(name, fixture("other.toml").decode() if name == "json" else None)
        assert (reader.name, reader.address(BOARDS[name])) == (name, address)
        assert reader.gap >= 1
        assert reader.terms.min_interval >= 900


def test_a_page_is_asked_for_as_one_and_a_slow_source_is_given_time() -> None:
    """By the media type of pages the fetcher knows that it must look at robots.txt."""
    asked: list[Asked] = []
    for name, body in (
        ("jsonld", "page.html"),
        ("ashby", "ashby.json"),
        ("rss", "feed.rss"),
        ("personio", "personio.xml"),
    ):
        read(name, fixture(body), asked=asked)
    page, slow, feed, xml = asked
    assert (page.accept, slow.accept, slow.seconds, page.seconds) == ("text/html", "application/json", 60, None)
    assert "application/rss+xml" in feed.accept
    assert "xml" in xml.accept


def test_links_of_a_feed_are_completed_by_its_address() -> None:
    body = fixture("feed.rss").replace(b"<link>https://meridian.example/jobs/1<", b"<link>/jobs/1<")
    assert read("rss", body).postings[0].url == "https://meridian.example/jobs/1"


@pytest.mark.parametrize(
    "source",
    ["greenhouse:", "greenhouse:../x", "lever:a/b", "personio:a.b", "recruitee:x y", "remoteok:some", "rss:feed",
     "rss:ftp://x.example/", "jsonld:https://", "rss:https://[x", f"rss:https://x.example/{'x' * 200}",
     f"ashby:{'a' * 200}"],
)  # fmt: skip
def test_a_name_that_cannot_be_a_board_is_refused(source: str) -> None:
    name, board = source.split(":", 1)
    with pytest.raises(ConfigurationError, match=name):
        adapter_of(name).address(board)


def test_an_unknown_adapter_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"greenhouse, lever, lever-eu, .*json"):
        adapter_of("myspace")
    with pytest.raises(ConfigurationError, match="mapping is needed"):
        adapter_of("json")
    with pytest.raises(ConfigurationError, match="takes no mapping"):
        adapter_of("ashby", "")
    with pytest.raises(ConfigurationError, match="title"):
        adapter_of("json", "[posting]")
