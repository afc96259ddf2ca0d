"""What was answered, by its type, and arguments as calls take them. This module is pure."""

import math
from typing import Final, TypeVar

from isochrone.errors import Indeterminate, InvalidRequest
from isochrone.wire.commands import Result

T = TypeVar("T")


def expect(kind: type[T], result: Result) -> T:
    """The result as what was asked for.

    Raises:
        Indeterminate: the node answered with something else, which it should never do.
    """
    if not isinstance(result, kind):
        raise Indeterminate(f"{kind.__name__} was asked for, and {type(result).__name__} was answered")
    return result


FOREVER: Final = math.inf
"""As a `wait_s`: as long as it takes. Nothing waits so long unless it is asked to."""


def wait_limit_s(wait_s: float | None, default_s: float) -> float:
    """How long to wait for others: what was asked for, else the client's deadline.

    Raises:
        InvalidRequest: it is negative, or no number.
    """
    if wait_s is None:
        return default_s
    if not wait_s >= 0:
        raise InvalidRequest(f"wait_s is {wait_s}; it is 0 (not at all), seconds, or FOREVER")
    return wait_s


def shown(name: bytes) -> str:
    """A key or name as people read it, in quotes."""
    return repr(name[:100].decode(errors="backslashreplace"))


def as_bytes(text: bytes | str) -> bytes:
    """Keys and values are bytes; text is encoded as UTF-8. What `os.fsdecode` made is turned back."""
    return text.encode(errors="surrogateescape") if isinstance(text, str) else text
