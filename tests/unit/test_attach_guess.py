"""Tables as companies have them, and what their columns are taken for."""

from feed.model.attach_guess import guess
from feed.model.column_names import folded
from tests.unit.tables import table


def test_a_german_table() -> None:
    found = guess(
        table("""
            id uuid!
            stellenbezeichnung text!
            arbeitgeber text!
            link text!
            plz character varying(5)
            ort text
            bundesland text
            land text
            beschreibung text
            beschäftigungsart text
            gehalt_von numeric(10,2)
            gehalt_bis numeric(10,2)
            waehrung character(3)
            home_office boolean
            schlagworte text[]
            breitengrad double precision
            laengengrad double precision
            erstellt_am timestamp
            gueltig_bis date
            aktiv boolean!
            interne_notiz text
        """)
    )
    assert found.fields == {
        "title": "stellenbezeichnung",
        "company": "arbeitgeber",
        "url": "link",
        "location": "concat_ws(', ', concat_ws(' ', plz, ort), bundesland)",
        "country": "land",
        "workplace": "CASE WHEN home_office THEN 'remote' END",
        "employment_type": '"beschäftigungsart"',
        "tags": "schlagworte",
        "salary_min": "gehalt_von",
        "salary_max": "gehalt_bis",
        "currency": "waehrung",
        "latitude": "breitengrad",
        "longitude": "laengengrad",
        "posted_at": "erstellt_am AT TIME ZONE 'UTC'",
        "valid_through": "(gueltig_bis + 1)::timestamp AT TIME ZONE 'UTC'",
        "description": "beschreibung",
    }
    assert (found.where, found.closed) == (None, "NOT aktiv")
    assert [column.name for column in found.unused] == ["id", "interne_notiz"]


def test_an_english_table_with_names_in_capitals_and_json() -> None:
    found = guess(
        table(
            """
            Id bigint!
            JobTitle text!
            CompanyName text
            CompanyId bigint
            ApplyUrl text
            City text
            State text
            CountryCode text
            BodyHtml text
            WorkMode enum(on_site, hybrid, remote)
            Skills jsonb
            SalaryMinUsdCents bigint
            CreatedAt timestamptz!
            DeletedAt timestamptz
            """,
            key="Id",
        ),
        [{"State": "TX"}, {"State": "NY"}],
    )
    assert found.fields == {
        "title": '"JobTitle"',
        "company": '"CompanyName"',
        "url": '"ApplyUrl"',
        "location": """concat_ws(', ', "City", "State")""",
        "country": '"CountryCode"',
        "workplace": """CASE WHEN lower("WorkMode"::text) IN ('remote') THEN 'remote' """
        """WHEN lower("WorkMode"::text) IN ('hybrid') THEN 'hybrid' """
        """WHEN lower("WorkMode"::text) IN ('on_site') THEN 'onsite' END""",
        "tags": """CASE jsonb_typeof("Skills") WHEN 'array' THEN ARRAY(SELECT jsonb_array_elements_text("Skills")) END""",
        "salary_min": '"SalaryMinUsdCents" / 100.0',
        "currency": "'USD'",
        "posted_at": '"CreatedAt"',
        "description_html": '"BodyHtml"',
    }
    assert found.closed == '"DeletedAt"'
    assert "CompanyId" in [column.name for column in found.unused]


def test_a_french_table() -> None:
    found = guess(
        table("""
            id integer!
            intitule_poste text!
            entreprise text!
            lien text!
            lieu_travail text
            type_contrat text
            salaire_min integer
            salaire_max integer
            devise text
            descriptif text
            date_publication timestamptz
            date_limite timestamptz
            mots_cles text
            est_publie boolean
            archive boolean
        """)
    )
    assert found.fields["title"] == "intitule_poste"
    assert (found.fields["company"], found.fields["url"]) == ("entreprise", "lien")
    assert (found.fields["location"], found.fields["employment_type"]) == ("lieu_travail", "type_contrat")
    assert (found.fields["salary_min"], found.fields["salary_max"]) == ("salaire_min", "salaire_max")
    assert (found.fields["posted_at"], found.fields["valid_through"]) == ("date_publication", "date_limite")
    assert found.fields["tags"] == "string_to_array(replace(mots_cles, ', ', ','), ',')"
    assert (found.where, found.closed) == ("est_publie IS TRUE", "archive IS TRUE")


def test_a_spanish_table() -> None:
    found = guess(
        table("""
            id integer!
            puesto text!
            empresa text!
            enlace text!
            ciudad text
            pais text
            teletrabajo boolean
            salario_desde numeric
            salario_hasta numeric
            moneda text
            creado_en timestamptz
            fecha_limite timestamptz
            activo boolean
        """)
    )
    assert found.fields.keys() == {
        "title", "company", "url", "location", "country", "workplace", "salary_min", "salary_max", "currency", "posted_at",
        "valid_through",
    }  # fmt: skip
    assert found.closed == "activo IS NOT TRUE"


def test_a_status_is_read_by_its_values_and_only_where_one_of_them_means_open() -> None:
    enum = table("id bigint!\ntitle text\nstatus enum(draft, published, filled, withdrawn)!")
    assert (guess(enum).where, guess(enum).closed) == ("status NOT IN ('draft')", "status NOT IN ('published')")
    text = table("id bigint!\ntitle text\nstatus text")
    assert guess(text).closed is None
    seen = guess(text, [{"status": "Offen"}, {"status": "Besetzt"}, {"status": None}])
    assert (seen.where, seen.closed) == (None, "coalesce(status, '') NOT IN ('Offen')")
    assert guess(text, [{"status": "A"}, {"status": "B"}]).closed is None


def test_several_signs_of_an_end_are_joined() -> None:
    found = guess(table("id bigint!\ntitle text\nis_active boolean!\ndeleted boolean!\narchived_at timestamptz"))
    assert found.closed == "NOT is_active OR deleted OR archived_at IS NOT NULL"


def test_numbers_that_stand_for_yes_and_no_are_known_by_their_values() -> None:
    shape = table("id bigint!\ntitle text\naktiv smallint!\nbesetzt integer")
    assert guess(shape).closed is None
    assert guess(shape, [{"aktiv": 1, "besetzt": 7}, {"aktiv": 0, "besetzt": 1}]).closed == "aktiv = 0"


def test_times_that_are_counted_since_1970_are_known_by_their_size() -> None:
    shape = table("id bigint!\ntitle text\ncreated bigint\nexpires bigint")
    assert "posted_at" not in guess(shape).fields
    found = guess(shape, [{"created": 1_763_000_000_000, "expires": 1_763_000_000}]).fields
    assert found["posted_at"] == "to_timestamp(created / 1000.0)"
    assert found["valid_through"] == "to_timestamp(expires)"


def test_html_is_known_by_its_marks_and_a_url_by_its_beginning() -> None:
    shape = table("id bigint!\ntitle text\nbody text\nurl text\nlink text")
    rows = [{"body": "<p>Bake <b>bread</b></p>", "url": "jobs/baker", "link": "https://acme.example/jobs/baker"}]
    found = guess(shape, rows).fields
    assert (found.get("description"), found["description_html"], found["url"]) == (None, "body", "link")


def test_a_salary_says_its_currency_and_period_by_its_name() -> None:
    found = guess(table("id bigint!\njahresgehalt_von integer\ngehalt_bis_eur integer")).fields
    assert found["salary_min"] == "jahresgehalt_von"
    assert found["salary_period"] == "'year'"
    single = guess(table("id bigint!\nstundenlohn numeric\nwaehrung text")).fields
    assert (single["salary_min"], single["salary_max"], single["salary_period"]) == (
        "stundenlohn",
        "stundenlohn",
        "'hour'",
    )
    cents = guess(table("id bigint!\nsalary_min_cents integer")).fields
    assert cents == {"salary_min": "salary_min_cents / 100.0"}
    euros = guess(table("id bigint!\ngehalt_bis_eur integer")).fields
    assert euros == {"salary_max": "gehalt_bis_eur", "currency": "'EUR'"}


def test_tags_are_split_where_their_values_are() -> None:
    shape = table("id bigint!\ntitle text\nskills text")
    semicolons = guess(shape, [{"skills": "python; sql"}]).fields["tags"]
    assert semicolons == "string_to_array(replace(skills, '; ', ';'), ';')"
    assert guess(shape, [{"skills": "python|sql"}]).fields["tags"].endswith("'|')")


def test_a_word_for_the_posting_before_the_name_does_not_hide_it() -> None:
    found = guess(table("id bigint!\njob_name text\nvacancy_city text\nstellen_link text\njob_details text")).fields
    assert found == {
        "title": "job_name",
        "location": "vacancy_city",
        "url": "stellen_link",
        "description": "job_details",
    }


def test_what_looks_like_nothing_is_not_guessed() -> None:
    shape = table("id bigint!\na text\nb integer\ncompany_id bigint\nposition integer\nsalary text\nlat numeric")
    found = guess(shape)
    assert (found.fields, found.where, found.closed) == ({}, None, None)
    assert found.unused == shape.columns


def test_names_are_compared_without_case_accents_and_separators() -> None:
    assert folded("Gültig-Bis") == "gueltig_bis"
    assert folded("gueltigBis") == "gueltig_bis"
    assert folded("Intitulé du poste") == "intitule_du_poste"
    assert folded("JOB_TITLE") == "job_title"
    assert folded("Straße") == "strasse"
