"""A posting: its fields, what clients may write, and what they read."""

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from feed.errors import Fault
from feed.model.complaint import CURRENCY, complaints
from feed.model.html import sanitised, text_of

# The order in which the log holds a posting (migrations/0002_capture.sql). Append only.
FIELDS = (
    "id", "source", "external_id", "title", "company", "url", "location", "country", "workplace", "employment_type",
    "seniority", "tags", "salary_min", "salary_max", "currency", "salary_period", "latitude", "longitude", "posted_at",
    "valid_through", "version", "updated_at", "closed_at",
)  # fmt: skip

# The fields that filters read, in the order of the log's `was`. Append only.
FILTERED = (
    "title", "company", "location", "country", "workplace", "employment_type", "seniority", "tags", "salary_min",
    "salary_max", "currency", "salary_period", "latitude", "longitude",
)  # fmt: skip

Workplace = Literal["onsite", "hybrid", "remote"]
SalaryPeriod = Literal["year", "month", "week", "day", "hour"]

_LARGEST_DESCRIPTION = 1024 * 1024
"""Bytes in UTF-8 of a description, and of its HTML once it is sanitised (0001_job.sql, 0009_capture.sql)."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _storable(text: str) -> str:
    found = _UNSTORABLE.search(text)
    if found is None:
        return text
    name = "a NUL character (U+0000)" if found[0] == "\x00" else f"a lone surrogate (U+{ord(found[0]):04X})"
    raise ValueError(f"contains {name} at character {found.start()}, which cannot be stored; remove it")


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _web_address(text: str) -> str:
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError as error:
        raise ValueError(f"must be a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host or any(c.isspace() for c in text):
        raise ValueError("must be an http or https URL with a host and without spaces")
    return text


def _timestamp(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d.*", value):
        return value
    if isinstance(value, datetime) or value is None:
        return value
    raise ValueError("must be an RFC 3339 time such as 2026-11-21T09:30:00Z")


def _number(value: object) -> object:
    if isinstance(value, bool):  # which Python takes for 0 or 1
        raise ValueError("must be a number")
    return value


def _bounded(text: str) -> str:
    if len(text) > _LARGEST_DESCRIPTION // 4 and len(text.encode()) > _LARGEST_DESCRIPTION:
        raise ValueError(f"must be at most {_LARGEST_DESCRIPTION:,} bytes long")
    return text


Text = Annotated[str, AfterValidator(_storable)]
Description = Annotated[Text, AfterValidator(_bounded)]
Time = Annotated[AwareDatetime, BeforeValidator(_timestamp)]
Money = Annotated[Decimal, BeforeValidator(_number), Field(ge=0, le=999_999_999_999, max_digits=14, decimal_places=2)]


class PostingIn(BaseModel):
    """One posting as a client writes it. Text is kept as sent; salaries are in units of `currency` per `salary_period`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "source": "example", "external_id": "42", "title": "Site Reliability Engineer", "company": "Acme",
                    "url": "https://acme.example/jobs/42", "location": "Berlin, Germany", "country": "Germany",
                    "workplace": "hybrid", "employment_type": "full-time", "seniority": "senior",
                    "tags": ["python", "postgres"], "salary_min": 70000, "salary_max": 90000, "currency": "EUR",
                    "salary_period": "year", "description": "Keep the feed flowing.",
                }
            ]
        },
    )  # fmt: skip

    source: Annotated[Text, Field(min_length=1, max_length=200), AfterValidator(_filled)] = "api"
    external_id: Annotated[Text, Field(min_length=1, max_length=500)] | None = None
    title: Annotated[Text, Field(max_length=1000), AfterValidator(_filled)]
    company: Annotated[Text, Field(max_length=500), AfterValidator(_filled)]
    url: Annotated[Text, Field(max_length=4000), AfterValidator(_web_address)]
    location: Annotated[Text, Field(max_length=4000)] | None = None
    country: Annotated[Text, Field(max_length=200)] | None = None
    workplace: Workplace | None = None
    employment_type: Annotated[Text, Field(max_length=200)] | None = None
    seniority: Annotated[Text, Field(max_length=200)] | None = None
    tags: list[Annotated[Text, Field(max_length=200)]] = Field(default_factory=list, max_length=100)
    salary_min: Money | None = None
    salary_max: Money | None = None
    currency: Annotated[str, Field(pattern=CURRENCY)] | None = None
    salary_period: SalaryPeriod | None = None
    description: Description | None = None
    """Plain text. Absent or null: the text of `description_html`."""
    description_html: Annotated[Text, AfterValidator(sanitised), AfterValidator(_bounded)] | None = None
    """Only a safe subset of it is kept."""
    latitude: Annotated[float, BeforeValidator(_number), Field(ge=-90, le=90)] | None = None
    longitude: Annotated[float, BeforeValidator(_number), Field(ge=-180, le=180)] | None = None
    posted_at: Time | None = None
    valid_through: Time | None = None
    closed_at: Time | None = None
    """Absent: left as it is. Null: open (a closed posting reopens). A time: closed."""

    @model_validator(mode="after")
    def _fits(self) -> "PostingIn":
        if self.salary_min is not None and self.salary_max is not None and self.salary_min > self.salary_max:
            raise ValueError("salary_min must not be greater than salary_max")
        if (self.latitude is None) != (self.longitude is None):
            raise ValueError("latitude and longitude must be given together")
        if self.description is None and self.description_html is not None:
            self.description = text_of(self.description_html) or None
        return self

    @property
    def key(self) -> tuple[str, str] | None:
        """Source and external id, by which a later write updates the posting; None where each write makes a new one."""
        return None if self.external_id is None else (self.source, self.external_id)

    def row(self) -> dict[str, Any]:
        """Return the posting as the job store takes it: JSON values, and `closed_given` if the client wrote `closed_at`."""
        row = self.model_dump(mode="json")
        row["closed_given"] = "closed_at" in self.model_fields_set
        return row


class Posting(BaseModel):
    """A posting as clients read it in lists and events. Times are RFC 3339; `href` is a path on the server."""

    id: int
    source: str
    external_id: str | None
    title: str
    company: str
    url: str
    location: str | None
    country: str | None
    workplace: Workplace | None
    employment_type: str | None
    seniority: str | None
    tags: list[str]
    salary_min: float | None
    salary_max: float | None
    currency: str | None
    salary_period: SalaryPeriod | None
    latitude: float | None
    longitude: float | None
    posted_at: datetime
    valid_through: datetime | None
    version: int
    updated_at: datetime
    closed_at: datetime | None
    href: str


class PostingWhole(Posting):
    """A posting with its description, as a client reads it alone."""

    description: str | None
    """Plain text."""
    description_html: str | None
    """A safe subset of HTML: no scripts, styles or images."""


_SET_HERE = dict.fromkeys(("id", "version", "updated_at", "href"), "the service sets it, and it cannot be written")


def faults_of(error: ValidationError, index: int | None = None) -> list[Fault]:
    """Name each bad field of one posting; at most a hundred."""
    entries = error.errors(include_url=False, include_input=False)[:100]
    messages = complaints(entries, "field", PostingIn.model_fields, _SET_HERE)
    return [
        Fault(".".join(str(part) for part in entry["loc"]) or "posting", message, index)
        for entry, message in zip(entries, messages, strict=True)
    ]
