"""docs/etcd.md tells the truth: every command of its `console` blocks prints what stands below it.

`…` stands for anything on a line. Lines that etcdctl logs are left out, as in the document.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from etcd_nodes import etcd_nodes

pytestmark = pytest.mark.interop
GUIDE = Path(__file__).parents[3] / "docs" / "etcd.md"
END = "-- end of command --"


@dataclass(slots=True)
class Command:
    """One command, and the lines that it must print."""

    text: str
    prints: list[str] = field(default_factory=list)


def commands() -> list[Command]:
    found: list[Command] = []
    for block in re.findall(r"^```console\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Command(line[2:]))
            else:
                found[-1].prints.append(line)
    return found


def fits(expected: list[str], printed: list[str]) -> bool:
    patterns = [".*".join(map(re.escape, line.split("…"))) for line in expected]
    return len(patterns) == len(printed) and all(map(re.fullmatch, patterns, printed))


def run(script: str, directory: Path) -> list[list[str]]:
    """Run commands in one shell; the lines that each has printed."""
    done = subprocess.run(
        ["bash", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=True,
        cwd=directory,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    parts = done.stdout.split(END + "\n")
    return [[line for line in part.splitlines() if not line.startswith('{"level"')] for part in parts[:-1]]


def test_the_guide_tells_the_truth(tmp_path: Path) -> None:
    told = commands()
    assert len(told) > 20
    with etcd_nodes(tmp_path):
        printed = run("".join(f"{command.text}\necho '{END}'\n" for command in told), tmp_path)
    for command, lines in zip(told, printed, strict=True):
        assert fits(command.prints, lines), f"{command.text}\nprinted: {lines}\nexpected: {command.prints}"
