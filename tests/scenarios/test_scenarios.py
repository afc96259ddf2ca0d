"""Every `*.txt` beside this file is a scenario: commands, and the trace that they must leave.

`pytest tests/scenarios --rewrite` writes the traces of the run into the files. Read every changed line before you
keep it: a trace that you cannot explain is a bug found.
"""

from pathlib import Path

import pytest
from scenario_commands import run_scenario
from scenario_format import difference, rewritten

FILES = sorted(Path(__file__).parent.glob("*.txt"))


def test_the_scenarios_are_found() -> None:
    assert len(FILES) > 15


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_leaves_its_trace(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    actual = rewritten(text, run_scenario(text, path.name))
    if request.config.getoption("--rewrite"):
        path.write_text(actual)
    elif found := difference(text, actual, path.name):
        pytest.fail(f"{found}\n\n{path.name}: the trace has changed; CONTRIBUTING.md says what to do", pytrace=False)
