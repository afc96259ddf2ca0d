"""Keeps the repository root off `sys.path`: every room would be importable by a second name, as a second module.

`python -m pytest` puts the working directory there; `pytest` does not.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from isochrone import probes
from isochrone.drills.swarm.out_of_reach import OUT_OF_REACH

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="put the traces of this run into tests/scenarios/*.txt")


@pytest.fixture(scope="module", autouse=True)
def reaches_what_no_swarm_does(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tests that are named beside marks which a swarm does not reach do reach them, if all of the file are run."""
    path = request.path.relative_to(ROOT).as_posix()
    named = [mark for mark, why in OUT_OF_REACH.items() if why.endswith(f"({path})")]
    config = request.config
    if not named or config.option.keyword or any("::" in argument for argument in config.invocation_params.args):
        yield
        return
    probes.start_counting()
    yield
    reached = probes.stop_counting()
    assert [mark for mark in named if not reached[mark]] == [], "a swarm does not reach these, and no test does"
