"""Folding and words: Python and SQL agree on every text, so that a filter means the same in memory and in a list."""

import unicodedata

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feed.model.fold import fold, words
from tests.postgres.events import Connection

_SQL = "SELECT fold(t) AS fold, words(t) AS words FROM unnest($1::text[]) WITH ORDINALITY u(t, n) ORDER BY n"
_CHUNK = 20_000

STORABLE = st.characters(exclude_categories=("Cs",), exclude_characters="\x00")
INTERESTING = st.sampled_from(
    " \t-/.,'#+&()’–·ßẞÆæŒœÞþØøŁłĐđÐðıİiIſKÅÉéñÑüǗ̈ςσΣώΏЁёЙйЖжՈւևﬁⅣ①½ªº²µａＡ한글東京ç𝐀\u200b\u00ad\u3000\u0085\u2028"
)
TEXT = st.text(st.one_of(INTERESTING, STORABLE), max_size=30)


_PRIVATE = (0xE000, 0xF8FF, 0xF0000, 0x10FFFD)  # some stand for all


def _assigned_in_both(code: int) -> bool:
    """Leaves out what Python's Unicode does not know and a newer Postgres may decompose, and what cannot be stored."""
    return code in _PRIVATE or (code != 0 and unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co"))


async def compare(connection: Connection, texts: list[str]) -> None:
    rows = await connection.fetch(_SQL, texts)
    different = [
        (text, row["fold"], row["words"])
        for text, row in zip(texts, rows, strict=True)
        if (row["fold"], row["words"]) != (fold(text), words(text))
    ]
    assert different == []


async def test_every_code_point_folds_alike_alone_and_within_a_word(database: Connection) -> None:
    texts = []
    for code in range(1, 0x110000):
        if _assigned_in_both(code):
            texts.append(f"aB{chr(code)}Cé")
            if code < 0x3400:  # beyond lie ideographs and their like: nothing depends on where they stand
                texts.append(chr(code))
    for start in range(0, len(texts), _CHUNK):
        await compare(database, texts[start : start + _CHUNK])


async def test_any_text_folds_alike(database: Connection) -> None:
    seen: list[str] = []

    # The texts are made first and asked about in one go: a round trip each would be most of the time.
    @settings(
        max_examples=1500, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(TEXT)
    def collect(text: str) -> None:
        if all(_assigned_in_both(ord(c)) for c in text):
            seen.append(text)

    collect()
    assert len(seen) > 500
    await compare(database, seen)


async def test_lists_fold_alike(database: Connection) -> None:
    tags = ["Zürich", "ZURICH", "", "İstanbul", "Straße", "C#"]
    assert await database.fetchval("SELECT fold_all($1)", tags) == [fold(tag) for tag in tags]
    assert await database.fetchval("SELECT fold_all('{}')") == []
    assert await database.fetchval("SELECT fold_all(NULL)") is None


def test_folding_is_without_case_and_accents() -> None:
    assert fold("Zürich") == fold("ZURICH") == fold("Zu\u0308rich") == "zurich"
    assert fold("Straße") == fold("STRASSE") == fold("STRAẞE")
    assert fold("İstanbul") == fold("istanbul") == fold("ISTANBUL") == fold("ıstanbul")
    assert fold("Øster Ærø Łódź Þór") == "oster aero lodz thor"
    assert fold("ΟΔΟΣ") == fold("οδος") == fold("οδός")
    assert fold("МОСКВА") == fold("Москва")
    assert fold("ﬁnance ⅳ Ａ") == "finance iv a"


def test_words_are_apart_by_punctuation_but_for_sharps_and_pluses() -> None:
    assert words("Berlin, Germany") == " berlin germany "
    assert words("  C++/C# (m/w/d)\u2014Zürich\u3000") == " c++ c# m w d zurich "
    assert words("東京・大阪") == " 東京・大阪 "
    assert words("") == words("--") == "  "
