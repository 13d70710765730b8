"""What the commands that are clients of a feed have in common: the address they take unless told, and the option --key."""

from typing import Annotated

import typer

DEFAULT_URL = "http://127.0.0.1:8000"

Key = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="KEY", envvar="FEED_KEY",
        help="An API key or a token. Others on this machine can see the command line: better set FEED_KEY.",
    ),
]  # fmt: skip
