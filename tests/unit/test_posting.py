"""A posting: what a write may say, and what each field's fault is called."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from feed.errors import Fault
from feed.model.posting import FIELDS, FILTERED, Posting, PostingIn, PostingWhole, faults_of

JOB: dict[str, Any] = {"title": "Baker", "company": "Acme", "url": "https://acme.example/1"}


def faults(**fields: Any) -> list[Fault]:
    """What is wrong with a posting that is good but for `fields`."""
    with pytest.raises(ValidationError) as caught:
        PostingIn.model_validate(JOB | fields)
    return faults_of(caught.value)


def named(**fields: Any) -> list[str]:
    return [fault.field for fault in faults(**fields)]


def test_title_company_and_url_are_enough() -> None:
    posting = PostingIn.model_validate(JOB)
    assert (posting.source, posting.external_id, posting.tags, posting.key) == ("api", None, [], None)
    assert PostingIn.model_validate(JOB | {"source": "a", "external_id": "b"}).key == ("a", "b")


def test_every_missing_field_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        PostingIn.model_validate({})
    assert faults_of(caught.value, 3) == [Fault(name, "is required", 3) for name in ("title", "company", "url")]


def test_a_field_that_cannot_be_written_is_named() -> None:
    for name in ("id", "version", "updated_at", "href"):
        assert faults(**{name: 1}) == [Fault(name, "unknown field: the service sets it, and it cannot be written")]
    assert faults(photo=1) == [Fault("photo", "unknown field")]
    assert faults(externalId="x") == [Fault("externalId", "unknown field; did you mean `external_id`?")]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", ""), ("title", "  \t"), ("title", "x" * 1001), ("title", 5), ("title", None),
        ("company", "\n"), ("company", "x" * 501), ("source", ""), ("source", " "), ("source", "x" * 201),
        ("external_id", ""), ("external_id", "x" * 501), ("external_id", 5),
        ("url", "acme.example"), ("url", "ftp://acme.example"), ("url", "https://"), ("url", "https://a b.example"),
        ("url", "javascript:alert(1)"), ("url", "https://[::1"), ("url", "https://a.example/\n"), ("url", ""),
        ("url", "https://a.example/" + "x" * 4000),
        ("location", "x" * 4001), ("country", "x" * 201), ("employment_type", "x" * 201), ("seniority", "x" * 201),
        ("workplace", "moon"), ("workplace", "Remote"), ("salary_period", "decade"),
        ("currency", "eur"), ("currency", "EURO"), ("currency", "€"),
        ("salary_min", -1), ("salary_min", 10**12), ("salary_min", 1.005), ("salary_min", "lots"), ("salary_max", "NaN"),
        ("salary_min", True), ("salary_max", False),
        ("latitude", 90.1), ("longitude", -180.1), ("latitude", True), ("longitude", False),
        ("posted_at", "yesterday"), ("posted_at", 1_700_000_000), ("posted_at", "2026-11-21"),
        ("posted_at", "2026-11-21T09:30:00"), ("valid_through", "2026-13-01T00:00:00Z"), ("closed_at", True),
    ],
)  # fmt: skip
def test_a_value_that_will_not_do_is_named_by_its_field(field: str, value: object) -> None:
    other = {"latitude": {"longitude": 1}, "longitude": {"latitude": 1}}.get(field, {})
    assert named(**{field: value}, **other) == [field]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("title", "x" * 1001, "must have at most 1000 characters"), ("title", 5, "must be text"),
        ("tags", ["x"] * 101, "must have at most 100 values"), ("workplace", "moon", "must be onsite, hybrid or remote"),
        ("salary_min", "lots", "must be a number"), ("salary_min", -1, "must be at least 0"),
        ("salary_min", 1.005, "must have at most 2 decimal places"), ("salary_min", True, "must be a number"),
        ("currency", "eur", "must be a currency code of three capital letters, such as EUR"),
        ("url", "acme", "must be an http or https URL with a host and without spaces"),
        ("external_id", "", "must not be empty"), ("source", " ", "must not be blank"),
        ("posted_at", "2026-11-21T09:30:00", "must have a time zone, such as Z or +01:00"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_value_is_said_in_plain_words(field: str, value: object, says: str) -> None:
    assert faults(**{field: value}) == [Fault(field, says)]


def test_a_bad_tag_is_named_by_its_place() -> None:
    assert named(tags=["good", "x" * 201, 3]) == ["tags.1", "tags.2"]
    assert named(tags=["x"] * 101) == ["tags"]
    assert named(tags="go") == ["tags"]


def test_fields_that_contradict_each_other_are_said_in_words() -> None:
    assert faults(salary_min=2, salary_max=1) == [Fault("posting", "salary_min must not be greater than salary_max")]
    assert faults(latitude=1) == [Fault("posting", "latitude and longitude must be given together")]


@pytest.mark.parametrize(
    "field", ["title", "company", "source", "external_id", "location", "description", "description_html", "seniority"]
)
@pytest.mark.parametrize(("bad", "name"), [("\x00", "NUL character (U+0000)"), ("\ud800", "lone surrogate (U+D800)")])
def test_what_postgres_cannot_store_is_named_with_its_place(field: str, bad: str, name: str) -> None:
    found = faults(**{field: f"abc{bad}"})
    assert [fault.field for fault in found] == [field]
    assert name in found[0].message
    assert "character 3" in found[0].message


def test_every_fault_of_a_posting_is_told_at_once() -> None:
    assert set(named(title="", workplace="moon", salary_min=-1, tags=[1], colour=2)) == {
        "title", "workplace", "salary_min", "tags.0", "colour",
    }  # fmt: skip


@pytest.mark.parametrize(
    "value", ["2026-11-21T09:30:00Z", "2026-11-21t09:30:00.5+05:30", "2026-11-21 09:30:00-00:00", "2026-11-21T09:30Z"]
)
def test_times_are_rfc_3339(value: str) -> None:
    posting = PostingIn.model_validate(JOB | {"posted_at": value})
    assert posting.posted_at is not None and posting.posted_at.tzinfo is not None


def test_a_row_tells_an_absent_closed_at_from_a_null() -> None:
    assert PostingIn.model_validate(JOB).row()["closed_given"] is False
    assert PostingIn.model_validate(JOB | {"closed_at": None}).row()["closed_given"] is True
    assert PostingIn.model_validate(JOB | {"closed_at": "2026-01-01T00:00:00Z"}).row()["closed_given"] is True


def test_money_is_kept_to_the_cent() -> None:
    posting = PostingIn.model_validate(JOB | {"salary_min": "0.10", "salary_max": 999_999_999_999})
    assert (posting.salary_min, posting.salary_max) == (Decimal("0.10"), Decimal(999_999_999_999))


def test_text_is_kept_as_it_was_sent() -> None:
    text = "  e\u0301\r\n\u2028\U0001f600 "
    posting = PostingIn.model_validate(JOB | {"title": text, "tags": [text], "description": text})
    assert posting.title == posting.tags[0] == posting.description == text


def test_html_of_a_description_is_kept_safe_and_makes_the_text_where_there_is_none() -> None:
    html = {"description_html": "<p>a</p><script>b</script><p>c"}
    posting = PostingIn.model_validate(JOB | html)
    assert (posting.description_html, posting.description) == ("<p>a</p><p>c</p>", "a\n\nc")
    assert posting.row()["description"] == "a\n\nc"
    assert PostingIn.model_validate(JOB | html | {"description": None}).description == "a\n\nc"
    assert PostingIn.model_validate(JOB | html | {"description": "own"}).description == "own"
    assert PostingIn.model_validate(JOB | {"description_html": "<img>"}).description is None


def test_a_description_and_its_html_have_a_bound_in_bytes() -> None:
    for name in ("description", "description_html"):
        assert faults(**{name: "é" * 600_000}) == [Fault(name, "must be at most 1,048,576 bytes long")]
        PostingIn.model_validate(JOB | {name: "é" * 500_000})


def test_the_models_and_the_logs_order_of_fields_agree() -> None:
    assert {*FIELDS, "href"} == set(Posting.model_fields)
    assert {*FIELDS, "href", "description", "description_html"} == set(PostingWhole.model_fields)
    assert set(FILTERED) < set(FIELDS)
    assert set(PostingIn.model_fields) == {*FIELDS, "description", "description_html"} - {"id", "version", "updated_at"}
