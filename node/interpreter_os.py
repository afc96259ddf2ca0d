"""Settings of the Python interpreter for a process that is a node."""

import gc

GARBAGE_THRESHOLDS = (50_000, 20, 20)
"""New containers that survive before the youngest are looked through for cycles, and how many such rounds make one of
the next generation. Nearly all that a node makes for a request is freed by its reference counts; with the default of
700 an eighth of a busy leader's time went into looking for cycles that were not there."""


def tune_interpreter() -> None:
    """Call it once, when the node has loaded its groups: what exists by then is not looked through any more."""
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
