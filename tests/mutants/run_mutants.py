"""Plants each fault of `planted.py` in a copy of the sources and runs the one test that must notice it.

A mutant is killed when its test fails in the test itself, by an assertion or an error of the code under test. It
survives when the test passes. A test that does not end, that cannot be collected, or that fails for a name that does
not exist says nothing about the test, so the mutant counts as broken. First all tests must pass on the copy as it is.

Run it with `make mutants`, or on some: `python tests/mutants/run_mutants.py vote witness` (words of their names
or files).
Exit status: 0 all killed, 1 some survived or broken, 2 a mutant does not fit its file, or a test fails without any.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue

from planted import MUTANTS
from planting import DoesNotFit, Mutant, mutated, read

ROOT = Path(__file__).resolve().parents[2]
JOBS = 2
TIMEOUT_S = 60
_LEFT_BEHIND = (".git", ".venv", "__pycache__", "reports", "build", "dist", ".*_cache", ".hypothesis", "*.egg-info")
_BROKEN_SOURCE = ("ImportError", "ModuleNotFoundError", "SyntaxError", "IndentationError", "NameError")


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    BROKEN = "BROKEN"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A mutant's fate, how its test ended, and how long that took."""

    mutant: Mutant
    fate: Fate
    how: str
    elapsed_s: float


class Tree:
    """A copy of the sources in which one mutant at a time is planted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copytree(ROOT, root, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_BEHIND))
        # By hash, as a mutant may have the size and, within a second, the time of what it replaces.
        compileall = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "src", "tests"]
        subprocess.run(compileall, cwd=root, check=True)

    def run(self, mutant: Mutant) -> Outcome:
        """Plant, test, and put things right again."""
        begun_s = time.monotonic()
        source = read(self.root, mutant)
        path = self.root / mutant.file
        path.write_text(mutated(mutant, source), "utf-8")
        try:
            fate, how = self._fate(mutant)
        finally:
            path.write_text(source, "utf-8")
        return Outcome(mutant, fate, how, time.monotonic() - begun_s)

    def _fate(self, mutant: Mutant) -> tuple[Fate, str]:
        try:
            status, output = self.test([mutant.test])
        except subprocess.TimeoutExpired:
            return Fate.BROKEN, f"no end within {TIMEOUT_S} s"
        if status == 0:
            return Fate.SURVIVED, ""
        report = self.root / "report.xml"
        failures = [each.get("message", "") for each in ElementTree.parse(report).iter("failure")]
        if status != 1 or not failures:
            return Fate.BROKEN, output.strip().splitlines()[-1]
        how = failures[0].splitlines()[0]
        return (Fate.BROKEN if how.startswith(_BROKEN_SOURCE) else Fate.KILLED), how

    def test(self, tests: Sequence[str]) -> tuple[int, str]:
        """Run tests against this copy; returns the exit status of pytest and what it printed."""
        options = ["-q", "-x", "-p", "no:cacheprovider", "--junitxml=report.xml", "--timeout", str(TIMEOUT_S)]
        environment = os.environ | {"PYTHONPATH": str(self.root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S * len(tests),
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@contextmanager
def _trees(count: int) -> Iterator[list[Tree]]:
    with tempfile.TemporaryDirectory(prefix="isochrone-mutants-") as place:
        yield [Tree(Path(place) / f"tree-{number}") for number in range(count)]


def _run_all(trees: Sequence[Tree], mutants: Sequence[Mutant]) -> list[Outcome]:
    idle: SimpleQueue[Tree] = SimpleQueue()
    for tree in trees:
        idle.put(tree)

    def run(mutant: Mutant) -> Outcome:
        tree = idle.get()
        try:
            outcome = tree.run(mutant)
        finally:
            idle.put(tree)
        _show(outcome)
        return outcome

    with ThreadPoolExecutor(len(trees)) as pool:
        return list(pool.map(run, mutants))


def _show(outcome: Outcome) -> None:
    how = outcome.how if len(outcome.how) <= 90 else outcome.how[:87] + "..."
    print(f"{outcome.fate:<9} {outcome.elapsed_s:5.1f} s  {outcome.mutant.name:<60}  {how}", flush=True)


def main(words: Sequence[str]) -> int:
    """Run the mutants whose names or files hold any of the words, or all."""
    mutants = [
        mutant for mutant in MUTANTS if not words or any(word in mutant.name or word in mutant.file for word in words)
    ]
    if not mutants:
        print(f"no mutant is named by {', '.join(words)}")
        return 2
    begun_s = time.monotonic()
    try:
        for mutant in mutants:
            mutated(mutant, read(ROOT, mutant))
    except DoesNotFit as error:
        print(error)
        return 2
    with _trees(JOBS) as trees:
        status, output = trees[0].test(list(dict.fromkeys(mutant.test for mutant in mutants)))
        if status != 0:
            print(f"a test fails without any mutant:\n{output}")
            return 2
        outcomes = _run_all(trees, mutants)
    left = [outcome for outcome in outcomes if outcome.fate is not Fate.KILLED]
    print(f"\n{len(outcomes) - len(left)} of {len(outcomes)} mutants killed in {time.monotonic() - begun_s:.0f} s")
    for outcome in left:
        print(f"{outcome.fate}: {outcome.mutant.name}\n  {outcome.mutant.test}\n  {outcome.how}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
