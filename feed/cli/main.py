"""The command `feed`: a command is a module beside this one, named in COMMANDS and imported when it is asked for."""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from feed import __version__
from feed.cli.credential import advice
from feed.cli.terminal import exit_of, say
from feed.errors import FeedError

COMMANDS = ("serve", "migrate", "key", "post", "tail", "top", "doctor", "bench")


class Commands(TyperGroup):
    """The commands, with every `FeedError` ending in one line on stderr and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, in the order of the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the module of one command; a module has an `app` of its own or one function of its name."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"feed.cli.{cmd_name}")
        group = getattr(module, "app", None)
        if group is None:
            group = typer.Typer(add_completion=False, rich_markup_mode=None)
            group.command(cmd_name)(getattr(module, cmd_name))
        command = typer.main.get_command(group)
        command.name = cmd_name
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except FeedError as error:
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
