"""A table of somebody else's is described, its expressions are checked, and some of its rows are shown as postings."""

import re

import pytest

from feed.database.attach_check import checked, first_rows, sample
from feed.database.table_shape import describe, require
from feed.errors import ConfigurationError, DatabaseRefused
from feed.model.attach_guess import guess
from feed.model.attach_map import MapError
from feed.model.attachment import AttachmentSpec
from feed.model.table import Key
from tests.postgres.events import Connection, opened

STELLEN = """
CREATE SCHEMA app;
CREATE TYPE app.zustand AS ENUM ('entwurf', 'offen', 'besetzt');
CREATE DOMAIN app.kurz AS varchar(200) CHECK (VALUE <> '');
CREATE TABLE app.stellen (
  id uuid DEFAULT gen_random_uuid(), "Bezeichnung" app.kurz NOT NULL, arbeitgeber text, link text, ort text, gehalt text,
  faehigkeiten text, erstellt_am timestamp DEFAULT '2026-01-01 10:00', zustand app.zustand NOT NULL DEFAULT 'offen',
  gelöscht boolean, angaben jsonb, monat date NOT NULL DEFAULT '2026-01-15', PRIMARY KEY (id, monat), UNIQUE (link, monat)
) PARTITION BY RANGE (monat);
CREATE TABLE app.stellen_2026_01 PARTITION OF app.stellen FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE app.stellen_2026_02 PARTITION OF app.stellen FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')
  PARTITION BY RANGE (monat);
CREATE TABLE app.stellen_2026_02_a PARTITION OF app.stellen_2026_02 FOR VALUES FROM ('2026-02-01') TO ('2026-02-15');
CREATE FUNCTION app.slug(t text) RETURNS text LANGUAGE sql IMMUTABLE RETURN lower(t);
INSERT INTO app.stellen ("Bezeichnung", arbeitgeber, link, ort, gehalt, faehigkeiten, zustand) VALUES
  ('Bäcker', 'Acme', 'https://acme.example/1', 'Berlin', '52000', 'Brot; Brötchen', 'offen'),
  ('Koch', 'Acme', 'acme.example/2', 'Berlin', '50k', '', 'offen'),
  ('Fahrer', NULL, 'https://acme.example/3', NULL, NULL, NULL, 'besetzt'),
  ('Lehrer', 'Acme', 'https://acme.example/4', NULL, NULL, NULL, 'entwurf');
"""
FIELDS = {"title": '"Bezeichnung"', "company": "arbeitgeber", "url": "link"}


def spec_of(**more: object) -> AttachmentSpec:
    given: dict[str, object] = {
        "table": "app.stellen",
        "source": "app.stellen",
        "key": ("id", "monat"),
        "fields": FIELDS,
    }
    return AttachmentSpec(**(given | more))  # type: ignore[arg-type]


async def refusal(database: Connection, **more: object) -> str:
    shape = await describe(database, "app.stellen")
    with pytest.raises(MapError) as error:
        await checked(database, shape, spec_of(**more))
    return str(error.value)


async def test_a_partitioned_table_is_described_with_all_that_holds_its_rows(database: Connection) -> None:
    await database.execute(STELLEN)
    shape = await describe(database, "APP.stellen")
    assert (shape.name, shape.schema, shape.partitioned) == ("app.stellen", "app", True)
    assert shape.leaves == ("app.stellen_2026_01", "app.stellen_2026_02_a")
    assert shape.keys == (Key(("id", "monat"), primary=True),)  # the other one may hold nulls
    title, status = shape.column("Bezeichnung"), shape.column("zustand")
    assert title is not None
    assert status is not None
    assert (title.quoted, title.type, title.category, title.not_null) == ('"Bezeichnung"', "app.kurz", "S", True)
    assert (status.category, status.labels) == ("E", ("entwurf", "offen", "besetzt"))
    assert (shape.grants, shape.row_security, shape.owned) == ((), None, True)


async def test_what_cannot_be_attached_is_named_with_what_to_do(database: Connection) -> None:
    await database.execute(STELLEN + "CREATE VIEW public.sicht AS SELECT 1 AS id; CREATE TEMPORARY TABLE kurz (id int)")
    for name, said in {
        "feed.job": "feed.job belongs to feed itself",
        "pg_catalog.pg_class": "belongs to Postgres itself",
        "sicht": "public.sicht is a view",
        "app.stellen_2026_01": "is a partition: attach the whole table, app.stellen",
        "Stellen": "There is no table Stellen in the database .* Did you mean app.stellen?",
        "a b c": "There is no table a b c",
    }.items():
        with pytest.raises(ConfigurationError, match=said):
            await describe(database, name)


async def test_a_role_without_rights_is_told_the_grants_and_they_help(database: Connection, dsn: str) -> None:
    await database.execute(STELLEN + 'CREATE ROLE "needs Grants" LOGIN; GRANT USAGE ON SCHEMA feed TO "needs Grants"')
    try:
        async with opened(dsn.replace("postgres@", "needs%20Grants@")) as poor:
            shape = await describe(poor, "app.stellen")
            assert [re.sub(" TO .*", "", grant) for grant in shape.grants][:2] == [
                "GRANT USAGE ON SCHEMA app", "GRANT SELECT, TRIGGER ON app.stellen",
            ]  # fmt: skip
            assert len(shape.grants) == 5  # the schema, the table, and each partition of each level
            with pytest.raises(DatabaseRefused, match='GRANT USAGE ON SCHEMA app TO "needs Grants";'):
                require(shape)
            await database.execute(" ".join(shape.grants) + "ALTER TABLE app.stellen ENABLE ROW LEVEL SECURITY")
            shape = await describe(poor, "app.stellen")
            assert shape.grants == ()
            assert not shape.owned
            with pytest.raises(DatabaseRefused) as error:
                require(shape)
            await database.execute(str(error.value).partition("run: ")[2])
        async with opened(dsn.replace("postgres@", "needs%20Grants@")) as poor:
            require(await describe(poor, "app.stellen"))
    finally:
        await database.execute('DROP OWNED BY "needs Grants"; DROP ROLE "needs Grants"')


async def test_an_expression_that_the_database_refuses_is_told_in_its_words_with_the_columns(
    database: Connection,
) -> None:
    await database.execute(STELLEN)
    said = await refusal(database, fields=FIELDS | {"location": "orrt || ', DE'"})
    assert '--map location: the database refuses "orrt || \', DE\'": column "orrt" does not exist' in said
    assert 'Columns of app.stellen: id uuid, "Bezeichnung" app.kurz, arbeitgeber text' in said
    assert "syntax error" in await refusal(database, fields=FIELDS | {"location": "ort ||"})
    assert "refuses" in await refusal(database, fields=FIELDS | {"location": "ort), (link"})
    assert "aggregate functions are not allowed" in await refusal(database, fields=FIELDS | {"location": "max(ort)"})
    assert "set-returning functions" in await refusal(
        database, fields=FIELDS | {"location": "regexp_split_to_table(ort, ' ')"}
    )
    assert "$1" in await refusal(database, fields=FIELDS | {"location": "$1::text"})
    assert "changes without a write" in await refusal(database, closed="erstellt_am < now()")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"salary_min": "gehalt"}, "'gehalt' is text, not a number: add ::numeric (gehalt::numeric)"),
        ({"tags": "faehigkeiten"}, "is text, not a list of texts; write string_to_array(faehigkeiten, ',')"),
        ({"tags": "angaben"}, "write ARRAY(SELECT jsonb_array_elements_text(angaben))"),
        ({"posted_at": "ort"}, "is text, not a time; write ort::timestamptz"),
        ({"posted_at": "1763000000"}, "is integer, not a time; write to_timestamp(1763000000)"),
        ({"workplace": "gelöscht"}, "is boolean, not text; write CASE WHEN gelöscht THEN 'remote' END"),
        ({"location": "ARRAY[ort]"}, "is text[], not text; write array_to_string((ARRAY[ort]), ', ')"),
        ({"description": "angaben"}, "is jsonb, not text; write angaben ->> 'name'"),
    ],
)
async def test_an_expression_of_another_type_is_told_what_to_write(
    database: Connection, more: dict[str, str], said: str
) -> None:
    await database.execute(STELLEN)
    assert said in await refusal(database, fields=FIELDS | more)


async def test_conditions_are_true_or_false_and_an_end_may_be_a_time(database: Connection) -> None:
    await database.execute(STELLEN)
    assert "is text, not true or false; write ort = '...'" in await refusal(database, where="ort")
    assert "is zustand, not true or false, or a time" in await refusal(database, closed="zustand")
    shape = await describe(database, "app.stellen")
    found = await checked(database, shape, spec_of(closed="erstellt_am", fields=FIELDS | {"posted_at": "monat"}))
    assert (found.spec.closed, found.spec.closed_is_time) == ("erstellt_am AT TIME ZONE 'UTC'", True)
    assert found.spec.fields["posted_at"] == "monat::timestamp AT TIME ZONE 'UTC'"
    assert len(found.notes) == 2
    assert "read as UTC; for another one write erstellt_am AT TIME ZONE 'Europe/Berlin'" in found.notes[1]


async def test_rows_are_shown_as_postings_and_those_that_make_none_are_counted(database: Connection) -> None:
    await database.execute(STELLEN)
    shape = await describe(database, "app.stellen")
    guessed = guess(shape, await first_rows(database, shape, 100))
    assert guessed.where == "zustand NOT IN ('entwurf')"
    assert guessed.closed == "zustand NOT IN ('offen') OR \"gelöscht\" IS TRUE"
    found = await checked(database, shape, spec_of(fields=guessed.fields, where=guessed.where, closed=guessed.closed))
    shown = await sample(database, shape, found.spec, 100, 3)
    assert (shown.looked, shown.unwanted, shown.closed) == (4, 1, 1)
    assert [posting["title"] for posting in shown.postings] == ["Bäcker"]
    assert shown.postings[0]["tags"] == ["Brot", "Brötchen"]
    assert {why.partition(":")[0] for why in shown.refused} == {"url", "company"}
    odd = spec_of(fields=FIELDS | {"workplace": "ort", "location": "app.slug(ort)", "employment_type": "slug(ort)"})
    shown = await sample(database, shape, (await checked(database, shape, odd)).spec, 100, 3)
    assert shown.postings[0]["employment_type"] == "berlin"
    assert [why.partition(":")[0] for why in shown.dropped] == ["workplace"]


async def test_an_expression_that_fails_for_a_row_is_named(database: Connection) -> None:
    await database.execute(STELLEN)
    shape = await describe(database, "app.stellen")
    found = await checked(database, shape, spec_of(fields=FIELDS | {"salary_min": "gehalt::numeric"}))
    with pytest.raises(MapError) as error:
        await sample(database, shape, found.spec, 100, 3)
    assert "--map salary_min: 'gehalt::numeric' fails for some of the rows" in str(error.value)
    assert '"50k"' in str(error.value)
