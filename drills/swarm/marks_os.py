"""Every mark for a rare state that the package holds, read from its sources."""

import os
from collections.abc import Iterator
from pathlib import Path

import isochrone
from isochrone.probes import marks_in


def package_marks() -> list[str]:
    """The names of all marks in the sources of `isochrone`, in order, each once."""
    return marks_in(_sources())


def _sources() -> Iterator[str]:
    # In a working tree the rooms are symbolic links.
    for folder, _, names in os.walk(Path(isochrone.__file__).parent, followlinks=True):
        for name in names:
            if name.endswith(".py"):
                yield (Path(folder) / name).read_text("utf-8")
