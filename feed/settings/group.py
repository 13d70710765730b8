"""A group of settings, and how its fields are named in the environment."""

from collections.abc import Iterator
from typing import Annotated, TypeVar

from pydantic import AliasChoices, BeforeValidator, Field
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "FEED_"
"""What every environment variable of feed begins with."""

Seconds = Annotated[float, Field(gt=0)]
Bytes = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


def _split(value: object) -> object:
    """The parts of a text between commas; anything else as it is."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


T = TypeVar("T")
CommaSeparated = Annotated[tuple[T, ...], NoDecode, BeforeValidator(_split)]
"""Several values, written with commas between them in the environment."""


class Group(BaseSettings):
    """Settings that belong together. A field `name` is `FEED_NAME` in the environment, unless it has an alias."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, use_attribute_docstrings=True)


def variable_of(name: str, field: FieldInfo) -> str:
    """The environment variable that a field of a group is read from."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return alias if isinstance(alias, str) else f"{PREFIX}{name.upper()}"


def option_of(name: str, field: FieldInfo) -> str:
    """The name by which `load_settings` takes a field: its environment variable without the prefix, in lower case."""
    return variable_of(name, field).removeprefix(PREFIX).lower()


def argument_of(name: str, field: FieldInfo) -> str:
    """The keyword by which a group's constructor takes a field.

    A field with an alias is taken by that alone: taken by its own name as well, it would also be read from that name with
    the prefix in the environment, as `FEED_KEY` would be for `FEED_JWT_KEY`.
    """
    return name if field.validation_alias is None else variable_of(name, field)


def options_in(group: type[Group]) -> Iterator[tuple[str, str]]:
    """Each field of a group, as the name of the option and the name of the field."""
    for name, field in group.model_fields.items():
        yield option_of(name, field), name
