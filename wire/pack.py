"""msgpack with the one setting that the project uses, typed.

One packer serves the process, as making one for each value costs more than packing it. It keeps a buffer as large as
the largest value so far. Threads share it: for plain types it runs no Python code, so none comes in between.
"""

from collections.abc import Callable

import msgpack

pack: Callable[[object], bytes] = msgpack.Packer().pack
"""Encode a value of plain types. Bytes stay bytes, text stays text."""
