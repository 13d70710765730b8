"""The exit codes of every command; which one an error ends it with, and what the last line advises."""

from enum import IntEnum

from feed.client.errors import Refused, Unavailable, UnexpectedAnswer
from feed.errors import ConfigurationError, DatabaseUnavailable, FeedError

_ADVICE = {
    401: ". Give a valid key with --key or in FEED_KEY (`feed key create` makes one)",
    403: ". Use a key of another scope (`feed key create --scope ...`)",
}


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3


def exit_of(error: FeedError) -> Exit:
    """Return the exit code that `error` ends a command with."""
    match error:
        case ConfigurationError():
            return Exit.USAGE
        case Unavailable() | UnexpectedAnswer() | DatabaseUnavailable():
            return Exit.UNREACHABLE
        case _:
            return Exit.FAILED


def advice(error: FeedError) -> str:
    """Return what to do about an error that concerns the credential, "" for any other."""
    return _ADVICE.get(error.status, "") if isinstance(error, Refused) else ""
