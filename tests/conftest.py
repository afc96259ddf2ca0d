"""Keeps the repository root off `sys.path`: every room would be importable by a second name, as a second module.

`python -m pytest` puts the working directory there; `pytest` does not.
"""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="put the traces of this run into tests/scenarios/*.txt")
