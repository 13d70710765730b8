"""Why a stream ends."""

from enum import StrEnum


class Goodbye(StrEnum):
    """Why a stream ends from our side."""

    DRAIN = "drain"
    FULL = "full"
    RATE = "rate"
    UNAVAILABLE = "unavailable"
    MAX_AGE = "max_age"
    EXPIRED = "expired"
    REVOKED = "revoked"
    KICKED = "kicked"
    GONE = "gone"  # the client left: nobody is told


class Ended(StrEnum):
    """How a stream ended where nobody said goodbye."""

    CLIENT = "client"  # it left
    STALLED = "stalled"  # it took nothing for too long
    DEADLINE = "deadline"  # of the drain
    ERROR = "error"  # a fault of ours
