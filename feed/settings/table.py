"""The table of all settings, made from their declarations: `python -m feed.settings > deploy/SETTINGS.md`."""

from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from feed.settings.group import Group, variable_of
from feed.settings.settings import groups

_INTRODUCTION = """# Settings

Every setting of `feed serve` is an environment variable. A variable that begins with `FEED_` and is not in this list is an
error, and so is a value that cannot work. Bounds hold for each process, so for each worker, unless something else is said.

`python -m feed.settings > deploy/SETTINGS.md` writes this file from the settings themselves; a test fails when it is out of
date. The commands that are clients (`feed tail`, `feed post`, ...) read their credential from `FEED_KEY`.
"""
_COMPUTED = {"FEED_DATA_DIR": "`/var/lib/jobfeed` for root, otherwise the user's own folder for data"}
"""What the default depends on, where it is not the same on every machine."""
_UNITS = ((86_400, "d"), (3_600, "h"))


def table() -> str:
    """Return all settings in Markdown, with a section for each group: the variable, its default and its meaning."""
    return "\n".join([_INTRODUCTION, *(_section(name, kind) for name, kind in groups().items())])


def _section(name: str, kind: type[Group]) -> str:
    title = name.replace("_", " ").capitalize().replace("Jwt", "JWT")
    lines = [f"## {title}", "", kind.__doc__ or "", "", "| variable | default | meaning |", "| --- | --- | --- |"]
    for field_name, field in kind.model_fields.items():
        variable, meaning = variable_of(field_name, field), (field.description or "").replace("\n", " ")
        default = _COMPUTED.get(variable) or _default(field, meaning)
        lines.append(f"| {_names(variable, field)} | {default} | {meaning.replace('|', '&#124;')} |")
    return "\n".join([*lines, ""])


def _names(variable: str, field: FieldInfo) -> str:
    alias = field.validation_alias
    names = [str(one) for one in alias.choices] if isinstance(alias, AliasChoices) else [variable]
    return " or ".join(f"`{name}`" for name in names)


def _default(field: FieldInfo, meaning: str) -> str:
    value = field.default
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, tuple):
        return f"`{','.join(map(str, value))}`"
    if isinstance(value, float):
        unit = next((f" ({value / seconds:g} {unit})" for seconds, unit in _UNITS if value >= seconds), "")
        return f"`{value:g}`{unit}"
    if isinstance(value, int) and value >= 1024 and "bytes" in meaning.lower():
        return f"`{value}` ({value / 1024:g} KiB)" if value < 1024**2 else f"`{value}` ({value / 1024**2:g} MiB)"
    return f"`{value}`"
