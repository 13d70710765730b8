"""A source out of a command line: what is kept of it, and what is refused with what to do."""

from pathlib import Path

import pytest

from feed.cli.new_source import new_source, terms_of
from feed.errors import ConfigurationError
from feed.model.source import NewSource

MAPPING = '[posting]\ntitle = "t"\ncompany = { value = "Acme" }\nurl = "u"\n'
JSON = "json:https://acme.example/jobs.json#/jobs"


def read(name: str, *, url: str | None = None, file: Path | None = None, accept_terms: bool = False) -> NewSource:
    return new_source(name, url, file, accept_terms=accept_terms)


def test_an_address_a_mapping_and_terms_are_kept_as_they_were_given(tmp_path: Path) -> None:
    (file := tmp_path / "acme.toml").write_text(MAPPING)
    assert read("greenhouse:acme") == NewSource("greenhouse", "acme", "boards-api.greenhouse.io", min_interval=900.0)
    mirrored = read("greenhouse:acme", url="https://mirror.example/acme")
    assert (mirrored.url, mirrored.host) == ("https://mirror.example/acme", "mirror.example")
    mapped = read(JSON, file=file)
    assert (mapped.name, mapped.mapping, mapped.host) == (JSON, MAPPING, "acme.example")
    assert read("smartrecruiters:acme", accept_terms=True).switched_on
    remotive = read("remotive:all")
    assert list(terms_of(remotive)) == [
        "Remotive (https://remotive.com) must be named beside its postings",
        "it is fetched once in 6h00m at the most",
        "its postings must not be passed on to other boards",
    ]
    assert list(terms_of(mirrored)) == []


def test_what_cannot_be_a_source_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (bad := tmp_path / "bad.toml").write_text('[posting]\ntitel = "t"\n')
    for name, how, says in (
        ("acme", {}, "as in greenhouse:acme"),
        ("greenhouse:", {}, "as in greenhouse:acme"),
        ("Greenhouse:acme", {}, "did you mean greenhouse?"),
        ("workday:acme", {}, "These are known: greenhouse, lever"),
        ("greenhouse:a/b", {}, "letters, digits"),
        ("smartrecruiters:acme", {}, "--accept-terms"),
        (JSON, {}, "--map"),
        (JSON, {"file": bad}, "bad.toml: posting.titel"),
        (JSON, {"file": tmp_path / "nowhere.toml"}, "nowhere.toml"),
        ("greenhouse:acme", {"url": "mirror.example"}, "https://"),
    ):
        with pytest.raises(ConfigurationError) as refused:
            read(name, **how)  # type: ignore[arg-type]
        assert says in str(refused.value)
