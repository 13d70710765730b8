"""The credential of the commands that are clients: `--key` or FEED_KEY, and what to say where it is not good enough."""

from typing import Annotated

import typer

from feed.client import Refused
from feed.errors import FeedError

Key = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="KEY", envvar="FEED_KEY",
        help="An API key or a token. Others on this machine can see the command line: better set FEED_KEY.",
    ),
]  # fmt: skip

_ADVICE = {
    401: ". Give a key that is good with --key or in FEED_KEY (`feed key create` makes one)",
    403: ". Use a key of another scope (`feed key create --scope ...`)",
}


def advice(error: FeedError) -> str:
    """Return what to do about an error that concerns the credential; of any other, nothing."""
    return _ADVICE.get(error.status, "") if isinstance(error, Refused) else ""
