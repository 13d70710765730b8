"""`python -m feed` is the command `feed`."""

from feed.cli.main import app

app()
