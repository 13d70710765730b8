"""How an error ends a command: its exit code, and what its line advises."""

from feed.cli.terminal import Exit
from feed.client.errors import Refused, Unavailable, UnexpectedAnswer
from feed.errors import ConfigurationError, DatabaseUnavailable, FeedError

_ADVICE = {
    401: ". Give a valid key with --key or in FEED_KEY (`feed key create` makes one)",
    403: ". Use a key of another scope (`feed key create --scope ...`)",
}


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
