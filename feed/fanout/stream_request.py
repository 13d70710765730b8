"""What a client asks for when it opens a stream."""

from dataclasses import dataclass

from feed.model.filter import EVERYTHING, Filter
from feed.model.query import Start

_NOW = Start()


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """One request for a stream."""

    filter: Filter = EVERYTHING
    """The events that the client wants, within those that its credential lets it see."""
    start: Start = _NOW
    snapshot: str = "/v1/jobs"
    """The path of the list that a client reads when its cursor is of no use."""
    query: str = ""
    """The filter as the client wrote it: a query string; empty for everything."""
