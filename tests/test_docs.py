"""What the documents name is there: links, files, verbs of make, commands with their options, the SDK's methods."""

import ast
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner

from isochrone.client import Client
from isochrone.ops.cli.main import cli

ROOT = Path(__file__).parents[1]
GUIDES = ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md")
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("[a-z]*/**/*.md"))
    if not path.is_relative_to(ROOT / "reports")
)

_LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)(?:#[^)]*)?\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_FILE = re.compile(r"(?<![*\w])[\w./-]+\.(?:py|md|toml|yaml|txt|csv)")


def text_of(document: str | Path) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def code_of(document: str) -> list[str]:
    """Inline code, and the lines of code blocks that are not in a programming language; comments cut off."""
    text = text_of(document)
    lines = [line for language, block in _FENCE.findall(text) if not language for line in block.splitlines()]
    return [each.partition(" #")[0].strip() for each in (*_CODE.findall(_FENCE.sub("", text)), *lines)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_links_between_files_resolve(document: Path) -> None:
    targets = [target for target in _LINK.findall(text_of(document)) if "://" not in target]
    assert [target for target in targets if not (ROOT / document.parent / target).exists()] == []


@pytest.mark.parametrize("document", GUIDES)
def test_files_that_a_guide_names_exist(document: str) -> None:
    named = [name for each in code_of(document) for name in _FILE.findall(each) if not name.startswith("reports/")]
    assert named
    # A table that lists a room names its files without the room.
    rooms = [path for path in ROOT.iterdir() if (path / "__init__.py").exists()]
    missing = [name for name in named if not any((place / name).exists() for place in (ROOT, *rooms))]
    assert missing == []


def test_folders_that_the_architecture_names_exist() -> None:
    named = [each for each in code_of("ARCHITECTURE.md") if re.fullmatch(r"[\w./-]+/", each)]
    assert named
    places = (ROOT, ROOT / "regions")
    assert [name for name in named if not any((place / name).is_dir() for place in places)] == []


@pytest.mark.parametrize("document", GUIDES)
def test_verbs_of_make_exist(document: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", text_of("Makefile"), re.MULTILINE))
    named = {verb for each in code_of(document) for verb in re.findall(r"^make ([\w-]+)$", each)}
    assert named <= targets


@pytest.mark.parametrize("document", GUIDES)
def test_commands_and_their_options_exist(document: str) -> None:
    commands = [each for each in code_of(document) if re.match(r"(\.venv/bin/)?isochrone [a-z]", each)]
    for command in commands:
        arguments = shlex.split(command)[1:]
        # Asking for help reads all options, and does nothing.
        result = CliRunner().invoke(cli, [*(each for each in arguments if each != "…"), "--help"])
        assert result.exit_code == 0, f"{command}: {result.output}"
        given = [argument for argument in arguments if argument.startswith("deploy/")]
        assert [path for path in given if not (ROOT / path).exists()] == []
    assert commands or document != "README.md"


def test_python_in_the_readme_uses_what_the_sdk_has() -> None:
    blocks = [block for language, block in _FENCE.findall(text_of("README.md")) if language == "python"]
    assert blocks
    for block in blocks:
        tree = compile(block, "README.md", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id.lower() != "client" or hasattr(Client, node.attr), node.attr
