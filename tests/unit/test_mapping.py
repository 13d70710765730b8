"""Foreign records become postings as a mapping file says, and a wrong file says where it is wrong."""

from importlib.resources import files
from typing import Any

import pytest

from feed.errors import Invalid
from feed.model.mapping import MappingError, RecordMap
from feed.model.posting import PostingIn

REQUIRED = {"title": "title", "company": "company", "url": "url"}


def mapping(*lines: str, where: str = "") -> RecordMap:
    """Return a mapping of the required fields and `lines` of [posting]."""
    given = {line.split("=")[0].strip() for line in lines}
    required = [f'{ours} = "{theirs}"' for ours, theirs in REQUIRED.items() if ours not in given]
    return RecordMap.parse("\n".join(["[where]", where, "[posting]", *required, *lines]))


def mapped(line: str, record: dict[str, Any]) -> Any:
    """Return what `line` of [posting] makes of `record`."""
    posting = mapping(line).apply({"title": "t", "company": "c", "url": "u", **record})
    assert posting is not None
    return posting.get(line.split("=")[0].strip())


def test_a_constant_is_the_same_for_every_record() -> None:
    assert mapped('source = { value = "example" }', {}) == "example"
    assert mapped('tags = { value = ["a", "b"] }', {}) == ["a", "b"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a", "1"),
        ("b.c", "deep"),
        ("d[0]", "first"),
        ("d[-1]", "last"),
        ("e[1].name", "two"),
        ("e[1].more[0].x", "inside"),
        ("two words", "blank"),
        ("d[7]", None),
        ("b.c.d", None),
        ("a[0]", None),
        ("nowhere.at.all", None),
    ],
)
def test_a_path_leads_through_objects_and_lists(path: str, found: object) -> None:
    record = {
        "a": 1,
        "b": {"c": "deep"},
        "d": ["first", "middle", "last"],
        "e": [{"name": "one"}, {"name": "two", "more": [{"x": "inside"}]}],
        "two words": "blank",
    }
    assert mapped(f'location = "{path}"', record) == found


def test_a_list_is_joined_without_repeating_itself() -> None:
    record = {"offices": [{"name": "Berlin"}, {"name": ""}, {"name": "Paris"}, {}, {"name": "Berlin"}]}
    assert mapped('location = { from = "offices[].name", join = "; " }', record) == "Berlin; Paris"


def test_lists_inside_lists_are_one_list() -> None:
    record = {"offices": [{"cities": ["Berlin", "Bonn"]}, {"cities": []}, {"cities": ["Paris"]}]}
    assert mapped('tags = "offices[].cities[]"', record) == ["Berlin", "Bonn", "Paris"]


def test_the_first_of_a_list_can_be_taken() -> None:
    assert mapped('location = { from = "places", first = true }', {"places": ["", "Rome", "Oslo"]}) == "Rome"


def test_one_value_is_a_list_of_one_where_a_list_is_wanted() -> None:
    assert mapped('tags = "label"', {"label": "python"}) == ["python"]


@pytest.mark.parametrize(
    ("unit", "count", "time"),
    [
        ("epoch_s", 1714605534, "2024-05-01T23:18:54Z"),
        ("epoch_s", "1714605534", "2024-05-01T23:18:54Z"),
        ("epoch_ms", 1714605534123, "2024-05-01T23:18:54.123000Z"),
        ("epoch_s", -1, "1969-12-31T23:59:59Z"),
    ],
)
def test_counts_since_1970_become_times(unit: str, count: object, time: str) -> None:
    assert mapped(f'posted_at = {{ from = "at", as = "{unit}" }}', {"at": count}) == time


@pytest.mark.parametrize("count", [1714605534123, "yesterday", True, {"at": 1}])
def test_a_time_that_is_none_is_a_fault_of_its_field(count: object) -> None:
    with pytest.raises(Invalid) as refused:
        mapped('posted_at = { from = "at", as = "epoch_s" }', {"at": count})
    assert [fault.field for fault in refused.value.faults] == ["posted_at"]


def test_values_are_replaced_kept_or_dropped() -> None:
    line = 'tags = { from = "x", as = "lower", values = { "on-site" = "onsite", "remote*" = "remote", "n/a" = "" } }'
    found = mapped(line, {"x": ["On-Site", "Remote in UK", "Remote", "N/A", "Hybrid"]})
    assert found == ["onsite", "remote", "hybrid"]


def test_the_first_pattern_that_matches_decides() -> None:
    line = 'workplace = { from = "x", values = { "Remote*" = "remote", "*" = "" }, first = true }'
    assert mapped(line, {"x": ["NYC", "Remote in USA"]}) == "remote"
    assert mapped(line, {"x": ["NYC"]}) is None


def test_true_false_and_numbers_are_matched_as_json_spells_them() -> None:
    line = 'workplace = { from = "x", values = { true = "remote", 0 = "onsite" } }'
    assert [mapped(line, {"x": x}) for x in (True, 0)] == ["remote", "onsite"]


@pytest.mark.parametrize("nothing", [None, "", [], ...])
def test_a_default_stands_in_for_nothing(nothing: object) -> None:
    record = {} if nothing is ... else {"x": nothing}
    assert mapped('country = { from = "x", default = "Germany" }', record) == "Germany"
    assert mapped('country = "x"', record) is None


def test_numbers_stay_numbers_only_where_numbers_belong() -> None:
    assert mapped('external_id = "x"', {"x": 42}) == "42"
    assert mapped('salary_min = "x"', {"x": 42}) == 42


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}, [["a"]], [{"a": 1}]])
def test_a_list_or_an_object_is_no_text(value: object) -> None:
    with pytest.raises(Invalid):
        mapped('location = "x"', {"x": value})


def test_every_fault_of_a_record_is_named() -> None:
    with pytest.raises(Invalid) as refused:
        mapping('location = "x"', 'posted_at = { from = "x", as = "epoch_s" }').apply({"x": ["a"]})
    assert [fault.field for fault in refused.value.faults] == ["location", "posted_at"]


@pytest.mark.parametrize(
    ("where", "record", "kept"),
    [
        ("active = true", {"active": True}, True),
        ("active = true", {"active": 1}, False),
        ("active = true", {}, False),
        ('kind = ["a", "b"]', {"kind": "b"}, True),
        ('kind = ["a", "b"]', {"kind": "c"}, False),
        ('employer.kind = "a"', {"employer": {"kind": "a"}}, True),
        ('"employer.kind" = "a"', {"employer": {"kind": "b"}}, False),
        ("x = 1\ny = 2", {"x": 1, "y": 3}, False),
    ],
)
def test_where_keeps_the_records_in_which_all_of_it_holds(where: str, record: dict[str, Any], kept: bool) -> None:
    assert (mapping('tags = { value = ["x"] }', where=where).apply(record) is not None) is kept


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[posting]\ntitel = "a"', "posting.titel: is unknown; did you mean title"),
        ('[postings]\ntitle = "a"', "postings: is unknown; did you mean posting"),
        ('[posting]\ntitle = "a"\ncompany = "b"', "posting.url: is missing"),
        ("[posting\n", "line 1"),
        ('posting = "a"', "posting: must be a table"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key(text: str, complaint: str) -> None:
    with pytest.raises(MappingError, match=complaint) as refused:
        RecordMap.parse(text, "x.toml")
    assert str(refused.value).startswith("x.toml: ")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('location = { form = "a" }', "posting.location.form: is unknown; did you mean from"),
        ('location = { default = "a" }', "posting.location: needs from"),
        ('location = { value = "a", as = "lower" }', "posting.location.as: is unknown"),
        ("location = 3", "posting.location: must be a path"),
        ('location = "a..b"', "posting.location: 'a..b' is not a path"),
        ('location = ".a"', "is not a path"),
        ('location = "a[x]"', "is not a path"),
        ('location = ""', "is not a path"),
        ('location = { from = ["a"] }', "posting.location.from: must be a path"),
        ('location = { from = "a", as = "upper" }', "posting.location.as: 'upper' is unknown; use one of: lower"),
        ('location = { from = "a", as = ["lower"] }', "posting.location.as"),
        ('location = { from = "a", join = 1 }', "posting.location.join: must be a text"),
        ('location = { from = "a", first = "yes" }', "posting.location.first: must be true or false"),
        ('location = { from = "a", join = ";", first = true }', "give join or first, not both"),
        ('location = { from = "a", values = ["a"] }', "posting.location.values: must be a table"),
        ('location = { from = "a", values = { b = [] } }', "posting.location.values.b: must be a text"),
        ('location = { from = "a", default = 2020-01-01 }', "posting.location.default: must be a text"),
    ],
)
def test_a_wrong_line_is_refused_with_its_key(line: str, complaint: str) -> None:
    with pytest.raises(MappingError) as refused:
        mapping(line)
    assert complaint in str(refused.value)


LISTING = {
    "source": "Simplify",
    "company_name": "Acme",
    "id": "9d0c0de0-0000-4000-8000-000000000001",
    "title": "Engineer \u2013 New Grad",
    "active": True,
    "date_updated": 1714605534,
    "date_posted": 1714605534,
    "url": "https://jobs.example/1",
    "locations": ["Berlin, Germany", "Paris, France"],
    "company_url": "",
    "is_visible": True,
    "sponsorship": "Other",
}


@pytest.mark.parametrize(
    ("listing", "expected"),
    [
        ({}, {"location": "Berlin, Germany; Paris, France"}),
        ({"source": "someone"}, {"location": "Berlin, Germany; Paris, France"}),
        ({"locations": ["Remote in USA"]}, {"location": "Remote in USA", "workplace": "remote"}),
        ({"locations": ["NYC", "Remote in UK"]}, {"location": "NYC; Remote in UK", "workplace": "remote"}),
        ({"locations": []}, {}),
        ({"locations": [], "sponsorship": "Offers Sponsorship"}, {"tags": ["visa sponsorship"]}),
        ({"locations": [], "sponsorship": "Does Not Offer Sponsorship"}, {"tags": ["no visa sponsorship"]}),
        ({"locations": [], "sponsorship": "U.S. Citizenship is Required"}, {"tags": ["us citizenship required"]}),
    ],
)
def test_the_shipped_example_maps_listings(listing: dict[str, Any], expected: dict[str, Any]) -> None:
    simplify = RecordMap.parse((files("feed") / "examples" / "simplify.toml").read_text("utf-8"))
    posting = simplify.apply({**LISTING, **listing})
    assert posting is not None
    PostingIn.model_validate(posting)
    assert posting == {
        "source": "simplify",
        "external_id": "9d0c0de0-0000-4000-8000-000000000001",
        "title": "Engineer \u2013 New Grad",
        "company": "Acme",
        "url": "https://jobs.example/1",
        "posted_at": "2024-05-01T23:18:54Z",
        **expected,
    }


@pytest.mark.parametrize("listing", [{"active": False}, {"is_visible": False}])
def test_the_shipped_example_leaves_out_what_is_not_open(listing: dict[str, Any]) -> None:
    simplify = RecordMap.parse((files("feed") / "examples" / "simplify.toml").read_text("utf-8"))
    assert simplify.apply({**LISTING, **listing}) is None
