"""The option of the commands that are clients: the credential, `--key` or FEED_KEY."""

from typing import Annotated

import typer

Key = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="KEY", envvar="FEED_KEY",
        help="An API key or a token. Others on this machine can see the command line: better set FEED_KEY.",
    ),
]  # fmt: skip
