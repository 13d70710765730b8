"""What columns of tables of job postings are called, in English, German, French and Spanish, the likeliest name first.

A name is compared folded: lower case, words joined by `_`, without accents, ä as ae, ß as ss (`folded`).
"""

import re
import unicodedata

_SPELT = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss", "œ": "oe", "ø": "o"}
)
_ABOUT = (
    "job", "jobs", "stelle", "stellen", "vacancy", "posting", "offer", "ad", "anzeige", "anzeigen", "stellenanzeige",
    "stellenangebot", "offre", "oferta", "empleo", "vac", "post", "listing", "position", "inserat",
)  # fmt: skip
_PREFIX = re.compile(f"^(?:{'|'.join(_ABOUT)})_(?=.)")
_UNIT = re.compile("(?:_(?:eur|euro|usd|gbp|chf|cents?|gross|brutto|amount|betrag))+$")


def folded(name: str) -> str:
    """Return a column's name in the form in which names are compared: `Gültig-Bis` and `gueltigBis` are `gueltig_bis`."""
    words = re.sub(r"(?<=[a-zà-ÿ0-9])(?=[A-ZÀ-Þ])", "_", name).translate(_SPELT)
    plain = "".join(c for c in unicodedata.normalize("NFKD", words) if not unicodedata.combining(c))
    return re.sub("[^a-z0-9]+", "_", plain.lower()).strip("_")


def stripped(name: str) -> str:
    """Return a folded name without a word for the posting before it (`stellen_ort`) or a unit behind it (`pay_usd`)."""
    return _PREFIX.sub("", _UNIT.sub("", name))


NAMES: dict[str, tuple[str, ...]] = {
    field: tuple(names.split())
    for field, names in {
        "title": """title job_title jobtitle titel jobtitel stellentitel stellenbezeichnung bezeichnung headline ueberschrift
            titre intitule intitule_poste intitule_du_poste titulo titulo_puesto position_title berufsbezeichnung position
            stelle poste puesto cargo role rolle funktion beruf subject betreff name""",
        "company": """company company_name companyname firma firmenname firmen_name arbeitgeber arbeitgebername
            arbeitgeber_name unternehmen unternehmensname employer employer_name organisation organization
            organization_name organisation_name hiring_organization org org_name entreprise nom_entreprise societe
            raison_sociale employeur empresa nombre_empresa compania empleador firm client client_name kunde kundenname
            auftraggeber brand marke recruiter""",
        "url": """url link job_url job_link stellen_url href permalink canonical_url public_url external_url detail_url
            absolute_url web_url page_url source_url weblink web_link webadresse webseite website lien lien_offre enlace
            apply_url application_url apply_link bewerbungslink bewerbungs_link bewerbungs_url hosted_url uri""",
        "location": """location locations job_location arbeitsort einsatzort dienstort standort standorte location_name
            place workplace_location lieu lieu_travail lieu_de_travail localisation ubicacion lugar lugar_trabajo
            office office_location adresse address direccion""",
        "city": "city stadt ort town ville ciudad localidad commune gemeinde municipio city_name ortsname",
        "postcode": "plz postleitzahl zip zip_code zipcode postal_code postcode code_postal codigo_postal cp",
        "region": "region bundesland province provinz kanton canton departement provincia comunidad county state",
        "country": """country land country_code countrycode country_name laendercode land_iso staat pays code_pays pais
            codigo_pais""",
        "employment_type": """employment_type employmenttype beschaeftigungsart anstellungsart anstellung vertragsart
            contract_type contract type_contrat type_de_contrat contrat tipo_contrato jornada job_type arbeitszeit
            arbeitszeitmodell commitment working_time work_type""",
        "seniority": """seniority seniority_level experience_level experiencelevel career_level karrierestufe karrierelevel
            hierarchieebene erfahrung erfahrungsstufe berufserfahrung level niveau niveau_experience experience nivel
            nivel_experiencia""",
        "tags": """tags tag_list labels keywords skills skill_list schlagworte schlagwoerter stichworte stichwoerter
            faehigkeiten kenntnisse technologies technologien mots_cles competences etiquetas palabras_clave
            habilidades categories kategorien""",
        "salary_min": """salary_min min_salary salary_from salary_low salary_start gehalt_von gehalt_min min_gehalt
            mindestgehalt gehalt_ab jahresgehalt_von jahresgehalt_min monatsgehalt_von stundenlohn_von lohn_von
            verguetung_von entgelt_von pay_min min_pay pay_from compensation_min wage_min annual_salary_min
            hourly_rate_min salaire_min salaire_de salaire_minimum salario_min salario_desde salario_minimo""",
        "salary_max": """salary_max max_salary salary_to salary_high salary_end gehalt_bis gehalt_max max_gehalt
            hoechstgehalt jahresgehalt_bis jahresgehalt_max monatsgehalt_bis stundenlohn_bis lohn_bis verguetung_bis
            entgelt_bis pay_max max_pay pay_to compensation_max wage_max annual_salary_max hourly_rate_max salaire_max
            salaire_a salaire_maximum salario_max salario_hasta salario_maximo""",
        "salary": """salary gehalt jahresgehalt monatsgehalt stundenlohn lohn verguetung entgelt pay wage annual_salary
            hourly_rate salaire salario""",
        "currency": """currency currency_code salary_currency pay_currency waehrung waehrungscode gehalt_waehrung
            gehaltswaehrung devise monnaie moneda divisa""",
        "salary_period": """salary_period pay_period salary_interval salary_unit pay_interval wage_type gehalt_periode
            gehalt_zeitraum gehaltszeitraum gehalt_pro zahlungsperiode lohnart periode_salaire periodo_salario
            salary_frequency""",
        "latitude": "latitude lat geo_lat breitengrad breite geo_breite latitud location_lat",
        "longitude": """longitude lon lng long geo_lon geo_lng laengengrad laenge geo_laenge longitud location_lon
            location_lng""",
        "posted_at": """posted_at posted_on date_posted published_at published_on publish_date publication_date
            veroeffentlicht_am veroeffentlicht veroeffentlichungsdatum publiziert_am online_seit online_ab freigegeben_am
            date_publication publie_le date_de_publication fecha_publicacion publicado_en publicado_el first_published
            created_at created_on created creation_date create_date created_date createdate date_created inserted_at
            insert_date erstellt_am erstellt erstellungsdatum erstelldatum erzeugt_am angelegt_am angelegt anlagedatum
            eingestellt_am eingetragen_am date_creation cree_le fecha_creacion creado_en creado_el""",
        "valid_through": """valid_through valid_until valid_to expires_at expires_on expires expiry expiry_date expire_date
            expiration_date expired_at gueltig_bis ablaufdatum ablauf_am laeuft_ab_am laufzeit_bis online_bis anzeige_bis
            closing_date close_date closes_at apply_by application_deadline deadline bewerbungsfrist bewerbungsschluss
            frist ends_at date_limite date_expiration expire_le valable_jusqu_au fecha_limite
            fecha_vencimiento fecha_caducidad caduca_en vence_en valido_hasta""",
        "description": """description job_description beschreibung stellenbeschreibung description_text body body_text text
            stellentext anzeigentext inhalt content details job_details aufgaben taetigkeiten freitext contenu
            descriptif descripcion contenido detalles summary zusammenfassung long_description""",
        "description_html": """description_html html_description body_html content_html html beschreibung_html
            html_beschreibung text_html html_text inhalt_html details_html descripcion_html contenu_html""",
        "workplace": """workplace workplace_type work_mode workmode work_model work_location_type location_type remote_type
            remote_policy arbeitsmodell arbeitsort_typ arbeitsform mode_travail modalite modalidad""",
        "remote": """remote is_remote remote_ok remote_work remote_possible remote_moeglich fully_remote home_office
            homeoffice homeoffice_moeglich home_office_moeglich telearbeit mobiles_arbeiten work_from_home wfh telecommute
            teletravail teletrabajo""",
        "hybrid": "hybrid is_hybrid hybrid_possible hybrid_moeglich hybride hibrido",
        "ended": """deleted_at deleted_on geloescht_am archived_at archiviert_am closed_at closed_on geschlossen_am filled_at
            besetzt_am deactivated_at disabled_at deaktiviert_am unpublished_at withdrawn_at zurueckgezogen_am
            offline_seit supprime_le archive_le ferme_le eliminado_en borrado_en cerrado_en""",
        "active": """active is_active aktiv ist_aktiv enabled is_enabled online is_online ist_online visible is_visible
            sichtbar open is_open offen ist_offen live is_live actif est_actif en_ligne activo activa esta_activo abierto
            abierta active_flag""",
        "inactive": """deleted is_deleted geloescht ist_geloescht archived is_archived archiviert ist_archiviert closed
            is_closed geschlossen filled is_filled besetzt expired is_expired abgelaufen inactive is_inactive inaktiv
            deactivated disabled is_disabled deaktiviert hidden is_hidden versteckt gesperrt offline supprime archive
            ferme inactif eliminado eliminada borrado cerrado cerrada inactivo""",
        "published": """published is_published veroeffentlicht ist_veroeffentlicht freigegeben ist_freigegeben approved
            is_approved genehmigt publie est_publie publicado publicada""",
        "draft": "draft is_draft entwurf ist_entwurf brouillon borrador es_borrador is_test test_anzeige",
        "status": """status job_status stellenstatus anzeigenstatus state zustand statut etat estado estatus
            publication_status""",
    }.items()
}
"""Names by what the column would be: a field of a posting, or a part of one (`city`, `remote`, `ended`)."""

WORKPLACES: dict[str, tuple[str, ...]] = {
    "remote": ("remote", "fully_remote", "fully remote", "homeoffice", "home office", "home_office", "telearbeit",
               "wfh", "work from home", "telecommute", "télétravail", "teletravail", "remoto", "teletrabajo", "à distance"),
    "hybrid": ("hybrid", "partly_remote", "partially remote", "teilweise remote", "hybride", "híbrido", "hibrido"),
    "onsite": ("onsite", "on-site", "on_site", "on site", "office", "in office", "vor ort", "vor_ort", "büro", "präsenz",
               "sur site", "sur_site", "presencial", "in_person", "in person"),
}  # fmt: skip

PERIODS: dict[str, tuple[str, ...]] = {
    "year": ("year", "yearly", "annual", "annually", "per year", "year_gross", "jahr", "jährlich", "pro jahr", "an",
             "annuel", "par an", "año", "anual", "yr", "per_year", "jahresgehalt"),
    "month": ("month", "monthly", "per month", "monat", "monatlich", "pro monat", "mois", "mensuel", "par mois", "mes",
              "mensual", "per_month", "monatsgehalt"),
    "week": ("week", "weekly", "per week", "woche", "wöchentlich", "semaine", "semana", "per_week"),
    "day": ("day", "daily", "per day", "tag", "täglich", "tagessatz", "jour", "día", "dia", "per_day"),
    "hour": ("hour", "hourly", "per hour", "stunde", "stündlich", "pro stunde", "stundenlohn", "heure", "hora", "per_hour"),
}  # fmt: skip

OPEN = frozenset({
    "open", "opened", "active", "live", "online", "published", "publish", "posted", "offen", "aktiv", "veroeffentlicht",
    "publiziert", "freigegeben", "ausgeschrieben", "ouvert", "ouverte", "publie", "publiee", "actif", "en_ligne", "abierto",
    "abierta", "activo", "activa", "publicado", "publicada",
})  # fmt: skip
"""Values of a status, folded, with which a posting is open."""
DRAFT = frozenset({
    "draft", "new", "pending", "review", "in_review", "unpublished", "entwurf", "neu", "in_pruefung", "geplant", "planned",
    "vorbereitung", "in_bearbeitung", "brouillon", "en_attente", "borrador", "pendiente",
})  # fmt: skip
"""Values of a status, folded, with which a row is no posting yet. With any other one the posting is closed."""

CURRENCIES = {"eur": "EUR", "euro": "EUR", "usd": "USD", "gbp": "GBP", "chf": "CHF"}
"""Words in a salary's name that tell its currency."""
SALARY_PERIODS = {
    "jahresgehalt": "year", "annual": "year", "yearly": "year", "monatsgehalt": "month", "monthly": "month",
    "stundenlohn": "hour", "hourly": "hour",
}  # fmt: skip
"""Words in a salary's name that tell its period."""
