"""The map of an attached table: what may be given, and what an error says to write instead."""

from pathlib import Path

import pytest

from feed.model.attach_map import AttachMap, MapError, check_complete, key_of, refuse_moving
from feed.model.attachment import FIELDS, typed
from feed.model.table import Key
from tests.unit.tables import table


def refusal(*given: str, **options: str) -> str:
    with pytest.raises(MapError) as error:
        AttachMap.of(given, **options)
    return str(error.value)


def test_options_give_expressions_in_the_order_of_a_postings_fields() -> None:
    found = AttachMap.of(
        ["url = link", "location=city || ', DE'", "title=a = b"], closed="NOT active", key='tenant,"Id, x"'
    )
    assert list(found.fields.items()) == [("title", "a = b"), ("url", "link"), ("location", "city || ', DE'")]
    assert (found.where, found.closed, found.key) == (None, "NOT active", ("tenant", "Id, x"))


def test_a_file_gives_all_of_it_and_options_win_over_it(tmp_path: Path) -> None:
    file = tmp_path / "map.toml"
    file.write_text(
        'where = "published"\nclosed = "NOT active"\nkey = ["id"]\n[posting]\ncompany = "\'Acme\'"\ntitle = "headline"\n'
    )
    found = AttachMap.of([str(file), "title=heading"], closed="ended_at")
    assert found == AttachMap({"title": "heading", "company": "'Acme'"}, "published", "ended_at", ("id",))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("tilte=x", "--map: tilte is no field of a posting; did you mean title?"),
        ("zzzz=x", f"zzzz is no field of a posting; the fields of a posting are: {', '.join(FIELDS)}"),
        ("closed_at=x", "--closed says when a posting is closed"),
        ("external_id=x", "--key names its columns"),
        ("source='x'", "--source names it"),
        ("title=  ", "--map title: is empty; give a column or an SQL expression"),
        ("=x", "names no field; write --map title=headline"),
        ("nowhere.toml", "the map nowhere.toml cannot be read"),
    ],
)
def test_an_option_that_cannot_be_is_refused_with_what_to_write(given: str, said: str) -> None:
    assert said in refusal(given)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = 'x'", "title is unknown; did you mean posting.title?"),
        ("[mapping]", "mapping is unknown; use where, closed, key or [posting]"),
        ("[posting]\nsalary = 'x'", "posting: salary is no field of a posting; did you mean salary_"),
        ("[posting]\ntitle = 3", "posting.title: must be an SQL expression in quotes"),
        ("key = 'id'", "key must be a list of names of columns"),
        ("[posting", "map: "),
    ],
)
def test_a_file_that_cannot_be_is_refused_with_its_key(text: str, said: str) -> None:
    with pytest.raises(MapError) as error:
        AttachMap.parse(text)
    assert said in str(error.value)


def test_what_every_posting_needs_is_asked_for_with_the_tables_columns() -> None:
    shape = table("id uuid!\nheadline text\nangelegt timestamptz")
    with pytest.raises(MapError) as error:
        check_complete({"title": "headline"}, shape)
    assert "lacks company and url" in str(error.value)
    assert "--map \"company='YOUR COMPANY'\"" in str(error.value)
    assert "Columns of public.vacancies: id uuid, headline text, angelegt timestamptz." in str(error.value)
    with pytest.raises(MapError, match="latitude and longitude must be mapped together"):
        check_complete({"title": "a", "company": "b", "url": "c", "latitude": "d"}, shape)


def test_the_key_is_the_primary_one_unless_another_is_given_that_can_be_one() -> None:
    shape = table("id bigint!\ntenant text!\nnumber integer!\nslug text", key="id")
    shape = type(shape)(1, shape.name, shape.columns, (*shape.keys, Key(("tenant", "number"), primary=False)))
    assert key_of(shape, []) == ("id",)
    assert key_of(shape, ["number", "tenant"]) == ("number", "tenant")
    with pytest.raises(MapError) as error:
        key_of(shape, ["slug"])
    assert "these can: id, tenant,number" in str(error.value)
    assert "ALTER TABLE public.vacancies ALTER COLUMN slug SET NOT NULL; CREATE UNIQUE INDEX" in str(error.value)
    with pytest.raises(MapError, match=r"has no column slugg\. Did you mean slug\?"):
        key_of(shape, ["slugg"])
    with pytest.raises(MapError, match="has no primary key"):
        key_of(table("slug text", key=""), [])


@pytest.mark.parametrize("expression", ["until > now()", "CURRENT_DATE > until", "random () < 0.5"])
def test_an_expression_that_changes_by_itself_is_refused(expression: str) -> None:
    with pytest.raises(MapError, match="map valid_through"):
        refuse_moving("--closed", expression)


def test_words_in_texts_and_names_do_not_count_as_what_changes_by_itself() -> None:
    refuse_moving("--closed", "state = 'now()' OR \"current_date\" OR nowhere(x) OR until_now")


def test_a_comment_at_the_end_of_an_expression_takes_no_bracket_along() -> None:
    assert typed("title", "headline -- theirs") == "(\nheadline -- theirs\n)::text"
