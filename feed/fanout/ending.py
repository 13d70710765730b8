"""Why a stream ends. The values are the reasons in `goodbye` frames, and the labels of `feed_streams_ended_total`."""

from enum import StrEnum


class Goodbye(StrEnum):
    """Why the service ends a stream: what its `goodbye` frame says."""

    DRAIN = "drain"
    FULL = "full"
    RATE = "rate"
    UNAVAILABLE = "unavailable"
    MAX_AGE = "max_age"
    EXPIRED = "expired"
    REVOKED = "revoked"
    KICKED = "kicked"
    GONE = "gone"  # the client left, so no frame says this


class Ended(StrEnum):
    """How a stream ended without a `goodbye` frame."""

    CLIENT = "client"  # the client left
    STALLED = "stalled"  # the client took nothing for `send_timeout`
    DEADLINE = "deadline"  # the deadline of the drain passed
    ERROR = "error"  # feed itself failed
