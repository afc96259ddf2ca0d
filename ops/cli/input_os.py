"""What commands read from standard input."""

import signal
import sys

from isochrone.errors import InvalidRequest
from isochrone.ops.cli.progress_os import say


def read_input(what: str) -> bytes:
    """All of standard input; people at a terminal are told `what` is read. Raises `InvalidRequest` if it is closed."""
    if sys.stdin is None:
        raise InvalidRequest(f"{what} is read from standard input, which is closed")
    if sys.stdin.isatty():
        say(f"reading {what} from standard input; Ctrl-D ends it")
    try:
        return sys.stdin.buffer.read()
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
