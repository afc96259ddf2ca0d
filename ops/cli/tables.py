"""Output for people: text and tables that fit a terminal of 80 columns where the names in them do."""

from collections.abc import Iterable, Sequence

import click
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_WIDE = 1000
"""Columns for output that no terminal bounds: nothing wraps, so that it can be searched by line."""


def print_parts(parts: Iterable[RenderableType]) -> None:
    """Print on standard output; without colours, wrapping and blanks at the ends of lines where that is no terminal."""
    console = Console(highlight=False)
    if console.is_terminal:
        for part in parts:
            console.print(part)
        return
    console = Console(highlight=False, width=_WIDE)
    for part in parts:
        with console.capture() as printed:
            console.print(part)
        for line in printed.get().splitlines():
            click.echo(line.rstrip())


def heading(text: str) -> Text:
    """The line above a table. A title of rich's own would wrap at the width of its table."""
    return Text(f"\n{text}", style="bold")


def make_table(columns: Sequence[str], *, right_from: int | None = None) -> Table:
    """An empty table; columns from number `right_from` on hold figures."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for number, column in enumerate(columns):
        figures = right_from is not None and number >= right_from
        table.add_column(column, justify="right" if figures else "left", overflow="fold")
    return table


def counted(count: int, noun: str) -> str:
    """`1 node`, `3 nodes`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
