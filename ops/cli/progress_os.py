"""A line on standard error that tells how far long work has come."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

FIRST_S = 2.0
"""Work that takes no longer than this shows nothing."""
REDRAW_S = 0.5
LINES_S = 30.0
"""Between two lines where standard error is no terminal."""


@contextmanager
def shown_while(describe: Callable[[], str], *, lines: bool = False) -> Iterator[None]:
    """Show how far the work of the block has come: on a terminal one line that is drawn anew.

    `describe` is called in another thread, and must only look. `lines`: elsewhere than on a terminal, print a line now
    and then.
    """
    terminal = sys.stderr.isatty()
    if not terminal and not lines:
        yield
        return
    ended = threading.Event()

    def show() -> None:
        pause_s = FIRST_S if terminal else LINES_S
        while not ended.wait(pause_s):
            if terminal:
                pause_s = REDRAW_S
                click.echo(f"{CLEAR_LINE}{describe()}", nl=False, err=True)
            else:
                click.echo(describe(), err=True)
        if terminal and pause_s == REDRAW_S:
            click.echo(CLEAR_LINE, nl=False, err=True)

    thread = threading.Thread(target=show, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


CLEAR_LINE = "\r\x1b[2K"


def say(text: str) -> None:
    """Print a line on standard error, over what `shown_while` draws there."""
    click.echo(f"{CLEAR_LINE if sys.stderr.isatty() else ''}{text}", err=True)
