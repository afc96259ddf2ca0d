"""YAML text to plain values, with every fault reported by key path.

Stricter than `yaml.safe_load`: a repeated key, a key that is not text, an explicit tag and an alias are faults (an
alias can make a small file expand without end).
"""

import yaml
from yaml.constructor import ConstructorError, SafeConstructor

from isochrone.topology.model import Problem

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
"""What a YAML document turns into."""


def parse_yaml(text: str, file: str) -> tuple[Plain, list[Problem]]:
    """Read one YAML document. `file` names it in problems. Of repeated keys the first one counts."""
    reader = _Reader(file)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                found = f"the alias *{event.anchor}"
                return None, [Problem(file, _position(event.start_mark), found, "the value itself, written out")]
            if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
                found = f"the tag {event.tag}"
                return None, [Problem(file, _position(event.start_mark), found, "values without tags")]
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        return None, [_syntax_problem(error, file)]
    except RecursionError:
        return None, [Problem(file, "document", "brackets nested beyond reason", "a few levels of nesting")]
    value = reader.value(root, "") if root is not None else None
    return value, reader.problems


def _syntax_problem(error: yaml.YAMLError, file: str) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        found = " ".join(part for part in (error.context, error.problem) if part)
        return Problem(file, _position(error.problem_mark), found, "one YAML document")
    return Problem(file, "document", str(error).splitlines()[0], "one YAML document in UTF-8")


def _position(mark: object) -> str:
    if not isinstance(mark, yaml.Mark):
        return "document"
    return f"line {mark.line + 1}, column {mark.column + 1}"


class _Reader:
    """Turns composed nodes into plain values and gathers faults."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._scalars = SafeConstructor()

    def value(self, node: yaml.Node, path: str) -> Plain:
        match node:
            case yaml.MappingNode():
                return self._mapping(node, path)
            case yaml.SequenceNode():
                return [self.value(item, f"{path}[{position}]") for position, item in enumerate(node.value)]
            case _:
                return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Plain]:
        mapping: dict[str, Plain] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node, path) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                found = (
                    f"the key {key_node.value!r}" if isinstance(key_node, yaml.ScalarNode) else "a key of many parts"
                )
                self.problems.append(Problem(self.file, path or "document", found, "a key that is text; quote it"))
                continue
            below = f"{path}.{key}" if path else key
            if key in mapping:
                where = _position(key_node.start_mark)
                self.problems.append(Problem(self.file, below, f"the key again at {where}", "each key once"))
                continue
            mapping[key] = self.value(value_node, below)
        return mapping

    def _scalar(self, node: yaml.Node, path: str) -> Plain:
        try:
            value = self._scalars.construct_object(node)
        except (ConstructorError, ValueError) as error:
            text = error.problem if isinstance(error, ConstructorError) else str(error)
            self.problems.append(Problem(self.file, path or "document", str(text), "text, a number or true/false"))
            return None
        if value is None or isinstance(value, bool | int | float | str):
            return value
        # Dates and binary values are written as text in a topology; keep the author's spelling.
        return str(node.value)
