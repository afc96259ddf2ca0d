"""msgpack with the one setting that the project uses, typed."""

from typing import cast

import msgpack


def pack(value: object) -> bytes:
    """Encode a value of plain types. Bytes stay bytes, text stays text."""
    return cast("bytes", msgpack.packb(value))
