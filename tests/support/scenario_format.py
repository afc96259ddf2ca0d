"""The text of a scenario: comments, and blocks of commands with the trace that they must leave.

::

    # Why this scenario exists.

    add-nodes a b c election=1000
    campaign a
    ----
    a: campaign
      became_pre_candidate term=0 index=0

A block is one or more command lines, a line `----`, and the expected trace up to the next empty line. Lines that start
with `#` are comments and stand between blocks. A command is a name, words, and options `name=value` or
`name=(value, value)`; quotes hold a word with spaces together. `rewritten` puts the traces of a run in the place of
the expected ones and leaves everything else as it was.
"""

import difflib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

SEPARATOR = "----"
_OPTION = re.compile(r"([a-z_]+)=(.*)", re.DOTALL)
_NAME = re.compile(r"[a-z][a-z-]*")


class ScenarioError(Exception):
    """The scenario itself is wrong: how it is written, or what it asks for. The message begins with file and line."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command line."""

    file: str
    line: int
    text: str
    name: str
    words: tuple[str, ...]
    options: dict[str, tuple[str, ...]]

    def error(self, message: str) -> ScenarioError:
        """An error about this command."""
        return ScenarioError(f"{self.file}:{self.line}: {message}")


@dataclass(frozen=True, slots=True)
class Block:
    """Commands and the trace that they must leave; `output_line` counts the lines before the trace."""

    commands: tuple[Command, ...]
    expected: tuple[str, ...]
    output_line: int


def parse_scenario(text: str, file: str) -> list[Block]:
    """The blocks of a scenario.

    Raises:
        ScenarioError: the text is not a scenario.
    """
    lines = text.splitlines()
    blocks: list[Block] = []
    commands: list[Command] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if line == SEPARATOR:
            if not commands:
                raise ScenarioError(f"{file}:{number}: a trace without a command")
            end = next((at for at in range(number, len(lines)) if not lines[at].strip()), len(lines))
            blocks.append(Block(tuple(commands), tuple(lines[number:end]), number))
            number, commands = end, []
        elif commands and (not line.strip() or line.startswith("#")):
            raise ScenarioError(f"{file}:{number}: a command must be followed by {SEPARATOR}")
        elif line.strip() and not line.startswith("#"):
            commands.append(parse_command(line, file, number))
    if commands:
        raise ScenarioError(f"{file}:{len(lines)}: a command must be followed by {SEPARATOR}")
    if not blocks:
        raise ScenarioError(f"{file}:{max(1, len(lines))}: a scenario without a command")
    return blocks


def parse_command(text: str, file: str, line: int) -> Command:
    """One command line."""
    try:
        tokens = _join_lists(shlex.split(text))
    except ValueError as error:
        raise ScenarioError(f"{file}:{line}: {error}: {text}") from error
    name, words, options = tokens[0], [], {}
    if not _NAME.fullmatch(name):
        raise ScenarioError(f"{file}:{line}: not the name of a command: {name}")
    for token in tokens[1:]:
        if not (option := _OPTION.fullmatch(token)):
            words.append(token)
            continue
        key, value = option.groups()
        if key in options:
            raise ScenarioError(f"{file}:{line}: option {key} is given twice")
        listed = value.startswith("(")
        options[key] = tuple(part.strip() for part in value[1:-1].split(",") if part.strip()) if listed else (value,)
    return Command(file, line, text, name, tuple(words), options)


def _join_lists(tokens: Sequence[str]) -> list[str]:
    """Put `k=(a,` and `b)` back together."""
    joined: list[str] = []
    for token in tokens:
        if joined and "=(" in joined[-1] and not joined[-1].endswith(")"):
            joined[-1] += token
        else:
            joined.append(token)
    if any("=(" in token and not token.endswith(")") for token in joined):
        raise ValueError("a list without its closing bracket")
    return joined


def rewritten(text: str, traces: Sequence[tuple[Block, Sequence[str]]]) -> str:
    """The text with other traces in the place of the expected ones."""
    lines = text.splitlines()
    for block, trace in reversed(traces):
        lines[block.output_line : block.output_line + len(block.expected)] = trace
    return "\n".join(lines) + "\n"


def difference(text: str, actual: str, file: str) -> str:
    """How a run differs from what the scenario expects, for people; empty if it does not."""
    before, after = f"{file} expects", "this run left"
    return "\n".join(difflib.unified_diff(text.splitlines(), actual.splitlines(), before, after, n=8, lineterm=""))
