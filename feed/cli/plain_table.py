"""Tables that are printed once: as wide as the terminal, and whole where they go to a file or a pipe."""

from rich.console import Console, RenderableType

_WHOLE = 400
"""Columns of a table that goes to a file or a pipe: nothing is cut off."""


def print_table(table: RenderableType, console: Console) -> None:
    """Print `table` on stdout, without spaces at the ends of its lines."""
    if not console.is_terminal:
        console = Console(highlight=False, width=_WHOLE)
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)
