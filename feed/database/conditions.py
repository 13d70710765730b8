"""The conditions of a filter in SQL: the twin of `Filter.matches`, which decides in memory."""

from typing import Any

from feed.model.filter import EQUALITY, Filter


def conditions(wanted: Filter, before: list[Any] | None = None) -> tuple[list[str], list[Any]]:
    """The SQL conditions of a filter over `job j`, and their arguments (behind those of `before`).

    The twin of `Filter.matches`.
    """
    where: list[str] = []
    arguments: list[Any] = [] if before is None else before

    def bind(value: Any) -> str:
        arguments.append(value)
        return f"${len(arguments)}"

    for name in EQUALITY:
        values = getattr(wanted, name)
        if not values:
            continue
        if name == "tag":
            where.append(f"fold_all(j.tags) && {bind(list(values))}::text[]")
        else:
            where.append(f"fold(j.{name}) = ANY ({bind(list(values))}::text[])")
    if wanted.location:
        parts = bind(list(wanted.location))
        where.append(f"EXISTS (SELECT FROM unnest({parts}::text[]) p WHERE strpos(words(j.location), p) > 0)")
    if wanted.currency:
        where.append(f"j.currency = ANY ({bind(list(wanted.currency))}::text[])")
    if wanted.salary_min is not None:
        where.append(
            f"yearly(j.salary_min, j.salary_max, j.salary_period) >= {bind(wanted.salary_min)}::double precision"
        )
    for beginning in wanted.q:
        text = "concat_ws(' ', j.title, j.company, array_to_string(j.tags, ' '), j.location)"
        where.append(f"strpos(words({text}), {bind(beginning)}) > 0")
    if wanted.near is not None:
        lat, lon = bind(wanted.near.latitude), bind(wanted.near.longitude)
        point = f"{lat}::double precision, {lon}::double precision, j.latitude, j.longitude"
        where.append(f"distance_km({point}) <= {bind(wanted.near.radius_km)}::double precision")
    if wanted.within is not None:
        inner, _ = conditions(wanted.within, arguments)
        where += inner
    return where, arguments
