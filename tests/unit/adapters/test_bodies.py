"""Bodies are read in the charset that they are in, hostile ones are refused, and a posting is rather cut than lost."""

import httpx
import orjson
import pytest

from feed.ingest.adapter import Answer, Malformed
from feed.ingest.body import json_of
from tests.unit.adapters.reading import fixture, read

BAKER = '{"offers": [{"id": 1, "title": "Bäcker", "company_name": "Grünwald", "careers_url": "https://a.example/1"}]}'


@pytest.mark.parametrize(
    ("charset", "declared"),
    [("utf-8", "charset=iso-8859-1"), ("utf-8", ""), ("utf-8-sig", "charset=utf-8"), ("utf-16", ""),
     ("latin-1", "charset=iso-8859-1"), ("latin-1", 'charset="ISO-8859-1"')],
)  # fmt: skip
def test_json_is_utf_8_whatever_is_declared_or_else_as_declared(charset: str, declared: str) -> None:
    found = read("recruitee", BAKER.encode(charset), f"application/json; {declared}")
    assert found.postings[0].title == "Bäcker"


def test_json_that_is_not_in_its_charset_is_malformed() -> None:
    with pytest.raises(Malformed, match="not UTF-8, and no charset is declared that fits it"):
        read("recruitee", BAKER.encode("latin-1"), "application/json; charset=utf-8")


@pytest.mark.parametrize("real", ["utf-8", "iso-8859-1"])
def test_xml_may_declare_another_charset_than_it_is_in(real: str) -> None:
    body = fixture("personio.xml").decode().replace('"UTF-8"', '"ISO-8859-1"').encode(real)
    assert read("personio", body, "text/xml").postings[0].location == "Kiel, Germany; Lübeck, Germany"


def test_a_page_without_a_charset_is_read_as_browsers_do() -> None:
    body = '<script type="application/ld+json">{"@type": "JobPosting", "title": "Bäcker – früh"}</script>'
    assert read("jsonld", body.encode("windows-1252"), "text/html").postings[0].title == "Bäcker – früh"


@pytest.mark.parametrize("name", ["personio", "rss"])
def test_xml_that_declares_entities_is_refused(name: str) -> None:
    bomb = (
        b'<?xml version="1.0"?><!DOCTYPE rss [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
        b"<rss version='2.0'><channel><title>&b;</title></channel></rss>"
    )
    with pytest.raises(Malformed, match="declares entities"):
        read(name, bomb, "text/xml")


def test_a_feed_that_speaks_of_entities_is_read() -> None:
    body = fixture("feed.rss").replace(b"Short.", b"Know &lt;!ENTITY by heart.").replace(b"<content:encoded>", b"<x>")
    assert len(read("rss", body.replace(b"</content:encoded>", b"</x>"), "text/xml").postings) == 2


@pytest.mark.parametrize("name", ["greenhouse", "lever", "personio", "rss", "jsonld", "json", "remoteok"])
def test_half_a_list_is_malformed(name: str) -> None:
    shapes = {"personio": "personio.xml", "rss": "feed.rss", "json": "other.json"}
    body = (
        fixture(shapes.get(name, f"{name}.json"))
        if name != "jsonld"
        else _page(b'{"@type": "JobPosting", "title": "Ba')
    )
    with pytest.raises(Malformed, match=r"https://"):
        read(name, body if name == "jsonld" else body[: len(body) // 2])


@pytest.mark.parametrize(
    ("name", "body"),
    [("greenhouse", b"[]"), ("greenhouse", b'{"jobs": null}'), ("ashby", b'{"error": "?"}'), ("lever", b'{"ok": false}'),
     ("remoteok", b"{}"), ("personio", b"<html/>"), ("rss", b"<html><p>Log in</p></html>"), ("recruitee", b"")],
)  # fmt: skip
def test_what_is_not_of_this_source_is_malformed(name: str, body: bytes) -> None:
    with pytest.raises(Malformed):
        read(name, body)


def test_a_page_is_read_in_a_time_that_grows_with_its_length_alone() -> None:
    """A tree of 100,000 open elements would take minutes, and hold up everything else."""
    page = b"<div>" * 100_000 + b"<script" * 100_000 + b"<!-- " * 100_000
    job = b'<SCRIPT class=x TYPE=Application/LD+JSON>{"@type": "JobPosting", "title": "Baker"}</Script >'
    assert read("jsonld", page, "text/html").postings == ()
    assert (
        len(read("jsonld", b"<!-- " + job.replace(b"Baker", b"Ghost") + b"--><!-->" + job + page, "text/html").postings)
        == 1
    )


@pytest.mark.parametrize("name", ["greenhouse", "personio", "rss", "jsonld"])
def test_an_empty_body_is_malformed(name: str) -> None:
    with pytest.raises(Malformed, match="the body is empty"):
        read(name, b" \n")


def test_a_page_without_postings_is_an_empty_board() -> None:
    assert read("jsonld", b"<p>Nothing now.</p>", "text/html").postings == ()


def test_texts_that_are_too_long_are_cut_and_what_does_not_fit_is_left_out() -> None:
    job = {
        "id": 1, "title": "t" * 2000, "company_name": "c" * 600, "absolute_url": "https://a.example/1",
        "location": {"name": "l" * 5000}, "departments": [{"name": str(n) + "d" * 300} for n in range(200)],
        "content": "&lt;p&gt;x&lt;/p&gt;" * 50_000, "first_published": "yesterday",
    }  # fmt: skip
    [posting] = read("greenhouse", orjson.dumps({"jobs": [job]})).postings
    assert (len(posting.title), len(posting.company), len(posting.location or "")) == (1000, 500, 4000)
    assert (len(posting.tags), {len(tag) for tag in posting.tags}) == (100, {200})
    assert posting.posted_at is None
    assert 0 < len(posting.description or "") <= 200_000


def test_a_url_that_is_none_makes_a_bad_posting_and_the_others_stay() -> None:
    jobs = [
        {"id": n, "title": "t", "absolute_url": url}
        for n, url in enumerate(["javascript:alert(1)", "https://a.example/"])
    ]
    found = read("greenhouse", orjson.dumps({"jobs": [*jobs, None, jobs[1]]}))
    assert [posting.external_id for posting in found.postings] == ["1"]
    assert [(bad.external_id, bad.faults[0].field, bad.faults[0].index) for bad in found.bad] == [
        ("0", "url", 0), (None, "posting", 2),
    ]  # fmt: skip


def test_two_postings_with_one_id_are_told_apart_from_one_that_is_listed_twice() -> None:
    jobs = [
        {"id": 1, "title": title, "absolute_url": f"https://a.example/{title}"} for title in ("Baker", "Baker", "Cook")
    ]
    found = read("greenhouse", orjson.dumps({"jobs": jobs}))
    assert [posting.title for posting in found.postings] == ["Baker"]
    assert [(bad.external_id, bad.faults[0].index) for bad in found.bad] == [("1", 2)]


def test_a_board_of_many_companies_tells_none() -> None:
    """Or else a list that happens to be of one company would look as if the board had changed hands."""
    for name, body in (("remotive", "remotive.json"), ("personio", "personio.xml"), ("rss", "feed.rss")):
        assert read(name, fixture(body).replace(b"Open Fields", "Lúa Studio".encode())).company is None


def test_titles_with_escaped_markup_are_unescaped() -> None:
    job = {"id": "1", "position": "R&amp;D <b>lead</b> (<3 years)", "company": "c", "url": "https://a.example/"}
    assert read("remoteok", orjson.dumps([job])).postings[0].title == "R&D lead (<3 years)"


def test_pages_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of postings that are always new: by their number, or earlier by their size."""

    def page(url: httpx.URL) -> bytes:
        first = int(url.params["skip"])
        jobs = [{"id": n, "text": "t" * 50, "hostedUrl": "https://a.example/"} for n in range(first, first + 5)]
        return orjson.dumps(jobs)

    found = read("lever", page)
    assert (len(found.postings), found.complete) == (1000, False)
    monkeypatch.setattr("feed.ingest.board._PAGED_BYTES", 1024)
    with pytest.raises(Malformed, match="pages are larger"):
        read("lever", page)


@pytest.mark.parametrize(
    ("bound", "name", "body"),
    [
        ("body._MOST_VALUES", "greenhouse", b'{"jobs": [[[], {}]]}'),
        ("body._LARGEST_TREE", "personio", b"<workzag-jobs/>"),
        ("body._LARGEST_TREE", "rss", b"<rss version='2.0'><channel/></rss>"),
        ("body._LARGEST_TREE", "jsonld", b"<p>Nothing"),
        ("collect._MOST", "recruitee", b'{"offers": [1, 2, 3, 4]}'),
    ],
)
def test_what_would_take_much_more_memory_than_its_bytes_is_refused(
    monkeypatch: pytest.MonkeyPatch, bound: str, name: str, body: bytes
) -> None:
    read(name, body)
    monkeypatch.setattr(f"feed.ingest.{bound}", 3)
    with pytest.raises(Malformed, match=r"larger than|more than|at most 3"):
        read(name, body)


def test_an_id_that_is_too_long_becomes_its_hash() -> None:
    body = fixture("feed.rss").replace(b"meridian-1", b"m" * 1000)
    external_id = read("rss", body).postings[0].external_id
    assert external_id is not None and external_id.startswith("sha256:")


def _page(script: bytes) -> bytes:
    return b'<script type="application/ld+json">' + script + b"</script>"


def test_an_error_does_not_tell_the_query_of_a_url_which_may_hold_a_secret() -> None:
    answer = Answer("https://jobs.example/list?token=s3cret", b"<", "application/json", httpx.Headers())
    with pytest.raises(Malformed) as refused:
        json_of(answer)
    assert str(refused.value).startswith("https://jobs.example/list: the body is not JSON")
    assert "s3cret" not in str(refused.value)
