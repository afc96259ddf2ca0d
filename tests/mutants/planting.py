"""What a planted fault is, and how it gets into a copy of the sources."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A fault that somebody might make, and the one test that must notice it."""

    name: str
    """What is wrong with it, in a few words."""
    file: str
    """Which file it changes, relative to the repository's root."""
    old: str
    """What it replaces: text that stands exactly once in the file."""
    new: str
    test: str
    """Id of the one test that may kill it; with parameters where only one case of the test does."""


class DoesNotFit(Exception):
    """The text that a mutant replaces does not stand exactly once in its file: the file has changed."""


def mutated(mutant: Mutant, source: str) -> str:
    """The text of the mutant's file with the fault in it.

    Raises:
        DoesNotFit: see there.
    """
    found = source.count(mutant.old)
    if found != 1:
        raise DoesNotFit(f"{mutant.name}: the text to replace stands {found} times in {mutant.file}")
    return source.replace(mutant.old, mutant.new)


def read(root: Path, mutant: Mutant) -> str:
    """The text of the mutant's file below `root`."""
    return (root / mutant.file).read_text("utf-8")
