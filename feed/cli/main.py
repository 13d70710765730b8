"""The command `feed`: each of COMMANDS is a module beside this one, imported when that command is asked for.

The help text comes from COMMANDS: it needs none of the modules, which take seconds to import on a small machine.
"""

import gc
from importlib import import_module
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from feed import __version__
from feed.cli.messages import say
from feed.errors import FeedError

COMMANDS = {
    "serve": "Serve the feed over HTTP/1.1 and HTTP/2.",
    "migrate": "Create or upgrade the feed's schema.",
    "key": "Make, list and revoke API keys.",
    "psql": "Open psql on the feed's database.",
    "source": "Add, list, check and remove public boards to fetch.",
    "post": "Post job postings from a file or a pipe.",
    "attach": "Make a table of yours a live feed.",
    "attached": "Show the attached tables.",
    "detach": "End the attachment of a table, and close its postings.",
    "ingest": "Fetch the public boards that are due.",
    "tail": "Follow job postings as they are committed.",
    "top": "Show who follows a feed, or the boards that it fetches.",
    "doctor": "Check what a feed needs, and say what to do about what it lacks.",
    "bench": "Measure a running feed.",
}
"""The commands with one line of help each, in the order of the help text."""


def _imported(name: str) -> ModuleType:
    """Import a module without the garbage collector, which would find nothing and take a seventh of the time.

    What was imported stays, so later collections need not look at it either.
    """
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.freeze()
        gc.enable()


class Commands(TyperGroup):
    """The commands, with every `FeedError` ending in one line on stderr and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, in the order of the help text."""
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the module of one command; a module has an `app` of its own, or one function of its name
        (and CONTEXT, settings of click, where that needs any).
        """
        if cmd_name not in COMMANDS:
            return None
        module = _imported(f"feed.cli.{cmd_name}")
        group = getattr(module, "app", None)
        if group is None:
            group = typer.Typer(add_completion=False, rich_markup_mode=None)
            context = getattr(module, "CONTEXT", None)
            group.command(cmd_name, context_settings=context)(getattr(module, cmd_name))
        command = typer.main.get_command(group)
        command.name = cmd_name
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except FeedError as error:
            from feed.cli.exit_codes import advice, exit_of  # imports the client, which --help must not wait for

            say(f"{error}{advice(error)}")
            raise typer.Exit(exit_of(error)) from error


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"feed {__version__}")
        raise typer.Exit


@app.callback()
def feed(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Stream job postings the second they are committed in Postgres."""
