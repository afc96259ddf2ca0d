"""What was answered, by its type. This module is pure."""

from typing import TypeVar

from isochrone.errors import Indeterminate
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


def as_bytes(text: bytes | str) -> bytes:
    """Keys and values are bytes; text is encoded as UTF-8."""
    return text.encode() if isinstance(text, str) else text
