"""Query parameters: turns what a client wrote into a canonical filter and a start. Every refusal names its field."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from feed.errors import Fault, Invalid
from feed.model.complaint import CURRENCY_IN_ANY_CASE, complaints
from feed.model.cursor import Cursor, parse_cursor
from feed.model.event import Kind
from feed.model.filter import EQUALITY, EVERYTHING, Filter, Near
from feed.model.fold import fold, words


def _comparable(text: str) -> str:
    if _NO_TEXT.search(text):
        raise ValueError("contains a NUL character or a lone surrogate, which no posting has")
    return text


# SQL can be asked for neither.
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")
Text = Annotated[str, AfterValidator(_comparable)]
Value = Annotated[Text, Field(min_length=1, max_length=200)]


class FilterQuery(BaseModel):
    """The filters as query parameters: repeat a name for OR; different names are AND."""

    model_config = ConfigDict(extra="forbid")

    company: list[Value] = Field(default_factory=list, description="Company, whole; case and accents do not count.")
    country: list[Value] = Field(default_factory=list, description="Country, whole.")
    location: list[Value] = Field(
        default_factory=list, description='Location or whole words of it: `berlin` finds "Berlin, Germany".'
    )
    workplace: list[Literal["onsite", "hybrid", "remote"]] = Field(default_factory=list)
    employment_type: list[Value] = Field(default_factory=list, description="Such as `full-time`, whole.")
    seniority: list[Value] = Field(default_factory=list, description="Such as `senior`, whole.")
    tag: list[Value] = Field(default_factory=list, description="One of the posting's tags, whole.")
    salary_min: float | None = Field(
        default=None, ge=0, allow_inf_nan=False,
        description="The posting's upper salary bound is at least this a year (52 weeks, 260 days, 2,080 hours). "
        "Needs `currency`.",
    )  # fmt: skip
    currency: list[Annotated[str, Field(pattern=CURRENCY_IN_ANY_CASE)]] = Field(
        default_factory=list, description="Currency of the salary, such as `EUR`."
    )
    q: Text | None = Field(
        default=None, max_length=500,
        description="Every word occurs in title, company, tags or location; beginnings of words are enough.",
    )  # fmt: skip
    near: str | None = Field(default=None, description="`lat,lon` in degrees, such as `52.52,13.405`.", max_length=60)
    radius_km: float | None = Field(
        default=None, gt=0, le=20_040, description="Around `near`, by great circle; 50 unless given."
    )
    event: list[Literal["posted", "updated", "closed"]] = Field(
        default_factory=list,
        description="Kinds of events to stream. A list ignores it but carries it into its `stream.url`.",
    )
    backfill: bool = Field(
        default=True,
        description="Whether to stream postings that were there before feed knew of them: the rows of a table when it is "
        "attached, those of a source when it is fetched for the first time. A list ignores it but carries it into its "
        "`stream.url`.",
    )

    def canonical(self, values: int = 100) -> Filter:
        """Return the filter of at most `values` values and words. Raises Invalid, naming each field that makes no sense."""
        faults: list[Fault] = []
        for name in (*EQUALITY, "location"):
            if len(getattr(self, name)) > values:
                faults.append(Fault(name, f"must have at most {values} values"))
        places = sorted({words(part) for part in self.location})
        if places and not places[0].strip():
            faults.append(Fault("location", "must contain a letter or a digit"))
        beginnings = sorted(set(words(self.q).split())) if self.q is not None else []
        if self.q is not None and not beginnings:
            faults.append(Fault("q", "must contain a letter or a digit"))
        if self.salary_min is not None and not self.currency:
            faults.append(Fault("salary_min", "needs a currency, such as `currency=EUR`"))
        total = sum(len(getattr(self, name)) for name in (*EQUALITY, "location", "currency")) + len(beginnings)
        if total > values and not faults:
            faults.append(Fault("filter", f"has {total} values and words; at most {values} are allowed"))
        near = _near(self.near, self.radius_km, faults)
        if faults:
            raise Invalid(faults)
        equal: dict[str, Any] = {
            name: tuple(sorted({fold(value) for value in getattr(self, name)})) for name in EQUALITY
        }
        found = Filter(
            **equal,
            location=tuple(places),
            q=tuple(f" {word}" for word in beginnings),
            salary_min=self.salary_min,
            currency=tuple(sorted({code.upper() for code in self.currency})),
            near=near,
            event=tuple(sorted({Kind(kind) for kind in self.event})) if len(set(self.event)) < 3 else (),
            backfill=self.backfill,
        )
        return EVERYTHING if found == EVERYTHING else found

    def encoded(self, **more: str) -> str:
        """Return the filters as the client wrote them, as a query string, with `more` parameters at the end."""
        pairs: list[tuple[str, str]] = []
        for name in FilterQuery.model_fields:
            value = getattr(self, name)
            if name == "backfill":
                value = None if value else "false"
            for one in value if isinstance(value, list) else [value] if value is not None else []:
                pairs.append((name, str(int(one)) if isinstance(one, float) and one.is_integer() else str(one)))
        return urlencode([*pairs, *more.items()])


def parse_filter(text: str) -> Filter:
    """Return the filter that a query string spells; an empty string spells all events. Raises Invalid."""
    given: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        given.setdefault(name, []).append(value)
    for name in given.keys() & {"salary_min", "q", "near", "radius_km", "backfill"}:
        if len(given[name]) > 1:
            raise Invalid([Fault(name, "must be given only once")])
        given[name] = given[name][0]
    try:
        return FilterQuery.model_validate(given).canonical()
    except ValidationError as error:
        raise Invalid(filter_faults(error)) from None


def filter_faults(error: ValidationError) -> list[Fault]:
    """Name each filter that is unknown or has a bad value; at most a hundred."""
    entries = error.errors(include_url=False, include_input=False)[:100]
    messages = complaints(entries, "filter", FilterQuery.model_fields)
    return [
        # A name that is not even text has no place.
        Fault(str((*entry["loc"], "filter")[0]), message if entry["loc"] else "contains a lone surrogate")
        for entry, message in zip(entries, messages, strict=True)
    ]


def _near(near: str | None, radius_km: float | None, faults: list[Fault]) -> Near | None:
    if near is None:
        if radius_km is not None:
            faults.append(Fault("radius_km", "needs a place: `near=<latitude>,<longitude>`"))
        return None
    found = re.fullmatch(r"\s*(-?\d{1,3}(?:\.\d{1,12})?)\s*,\s*(-?\d{1,3}(?:\.\d{1,12})?)\s*", near, re.ASCII)
    if found is None or abs(float(found[1])) > 90 or abs(float(found[2])) > 180:
        faults.append(Fault("near", "must be a latitude and a longitude in degrees, such as 52.52,13.405"))
        return None
    return Near(float(found[1]), float(found[2]), 50.0 if radius_km is None else radius_km)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a client wants its stream to begin: at a cursor, at a time, or at one of the ends of the log."""

    cursor: Cursor | None = None
    since: datetime | None = None
    earliest: bool = False
    malformed: bool = False  # the client sent an id that is no cursor


class StreamQuery(FilterQuery):
    """The filters, and where to begin: the header `Last-Event-ID`, else `last_event_id`, else `since`, else `from`."""

    last_event_id: str | None = Field(
        default=None, description="The id of the last event seen, `<epoch>.<position>` or a bare position."
    )
    since: str | None = Field(
        default=None, max_length=40, description="RFC 3339, or a time ago: `90s`, `15m`, `2h`, `3d`.",
        examples=["15m", "2026-11-21T09:30:00Z"],
    )  # fmt: skip
    from_: Literal["earliest", "now"] = Field(default="now", alias="from", description="An end of the log.")
    ticket: str | None = Field(
        default=None, max_length=100, description="Of `POST /v1/tickets`, where no header can go."
    )

    def start(self, last_event_id: str | None, now: datetime) -> Start:
        """Return where to begin. `last_event_id` is the header. Raises Invalid for a `since` that is no time."""
        sent = last_event_id or self.last_event_id
        since = None if self.since is None else parse_since(self.since, now)
        if sent:
            cursor = parse_cursor(sent)
            return Start(cursor=cursor, malformed=cursor is None)
        if since is not None:
            return Start(since=since)
        return Start(earliest=self.from_ == "earliest")


_LISTS = frozenset(
    field.alias or name for name, field in StreamQuery.model_fields.items() if field.default_factory is list
)


def stream_query(text: bytes) -> StreamQuery:
    """Return the query that a query string spells. Of a parameter that may be given once the last one counts.

    Raises pydantic's ValidationError.
    """
    given: dict[str, Any] = {}
    for name, value in parse_qsl(text.decode("latin-1"), keep_blank_values=True):
        if name in _LISTS:
            given.setdefault(name, []).append(value)
        else:
            given[name] = value
    return StreamQuery.model_validate(given)


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_since(text: str, now: datetime) -> datetime:
    """Return the instant that `text` spells, as RFC 3339 or as a time before `now`. Raises Invalid."""
    ago = re.fullmatch(r"([0-9]{1,8})([smhd])", text)
    try:
        if ago is not None:
            return now - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        # In a query string a plus sign reads as a blank.
        instant = datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)$", r"+\1", text))
        if instant.tzinfo is not None:
            return instant.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    says = "must be an RFC 3339 time such as 2026-11-21T09:30:00Z, or a time span such as 90s, 15m, 2h or 3d"
    raise Invalid([Fault("since", says)])
