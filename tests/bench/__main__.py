"""`python -m tests.bench`: the page."""

import typer

from tests.bench.page import main

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(main)
app()
