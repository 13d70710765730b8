"""Mapping files: any text is a mapping or refused; any record becomes a posting, is skipped, or is refused by field."""

import math
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from feed.errors import Invalid
from feed.model.mapping import MappingError, RecordMap
from feed.model.posting import PostingIn
from tests.fuzz import tries

FIELDS = [*PostingIn.model_fields]
REQUIRED = ("title", "company", "url")
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.sampled_from(["a", "b", "c d", "ä", "0"])
steps = st.one_of(names.map(lambda name: f".{name}"), st.sampled_from(["[]", "[0]", "[-1]", "[7]", "[999999]"]))
paths = st.builds("{}{}".format, names, st.lists(steps, max_size=3).map("".join))
scalars = st.one_of(
    any_text, st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)
)


def toml(value: Any) -> str:
    """A value as TOML writes it (of what JSON has, it writes most alike)."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(str(key))} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "nan"
    return orjson.dumps(value).decode().replace("\x7f", "\\u007f")


rules = st.one_of(
    paths,
    any_text,
    st.fixed_dictionaries({"value": st.one_of(scalars, st.lists(scalars, max_size=3))}),
    st.fixed_dictionaries(
        {"from": paths},
        optional={
            "as": st.sampled_from(["lower", "epoch_s", "epoch_ms"]), "first": st.booleans(), "join": any_text,
            "default": scalars, "values": st.dictionaries(any_text, scalars, max_size=3),
        },
    ),
    st.dictionaries(st.sampled_from(["from", "as", "first", "join", "values", "value", "x"]), scalars, max_size=3),
)  # fmt: skip
OPTIONAL = [name for name in FIELDS if name not in REQUIRED]
wheres = st.dictionaries(st.one_of(paths, any_text), st.one_of(scalars, st.lists(scalars, max_size=2)), max_size=2)
postings = st.fixed_dictionaries(dict.fromkeys(REQUIRED, rules), optional=dict.fromkeys(OPTIONAL, rules))


def written(tables: tuple[dict[str, Any], dict[str, Any]]) -> str:
    """A mapping file of a table [where] and a table [posting]."""
    where, posting = ([f"{toml(name)} = {toml(value)}" for name, value in table.items()] for table in tables)
    return "\n".join(["[where]", *where, "[posting]", *posting])


files = st.tuples(wheres, postings).map(written)
values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@tries(400)
@given(st.one_of(files, st.text(max_size=200)), st.dictionaries(names, values, max_size=5))
def test_any_file_is_a_mapping_or_refused_and_any_record_mapped_skipped_or_refused(
    text: str, record: dict[str, Any]
) -> None:
    try:
        made = RecordMap.parse(text, name="some.toml")
    except MappingError as refused:
        assert str(refused).startswith("some.toml: ")
        return
    try:
        posting = made.apply(record)
    except Invalid as refused:
        assert {fault.field for fault in refused.faults} <= set(FIELDS)
        return
    if posting is not None:
        assert set(posting) <= set(FIELDS)
        assert not any(value in (None, "", []) for value in posting.values())
        assert all(isinstance(value, list) == (field == "tags") for field, value in posting.items())


@tries(200)
@given(st.one_of(st.integers(), st.floats(), any_text), st.sampled_from(["epoch_s", "epoch_ms"]))
def test_any_count_is_a_time_or_a_fault_of_its_field(count: Any, unit: str) -> None:
    made = RecordMap.parse(
        f'[posting]\ntitle = "a"\ncompany = "a"\nurl = "a"\nposted_at = {{ from = "b", as = "{unit}" }}'
    )
    try:
        posting = made.apply({"a": "x", "b": count})
    except Invalid as refused:
        assert [fault.field for fault in refused.faults] == ["posted_at"]
    else:
        assert posting is not None
        assert "posted_at" not in posting or posting["posted_at"].endswith("Z")
