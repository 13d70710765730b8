"""feed streams job postings the second they are committed in Postgres."""

__version__ = "0.1.0"
