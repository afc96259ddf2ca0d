"""The planted faults fit the sources, and their tests are there. `make mutants` runs them."""

import ast
from pathlib import Path

import pytest
from planted import MUTANTS
from planting import DoesNotFit, Mutant, mutated, read

ROOT = Path(__file__).parents[1]


def by_name(mutant: Mutant) -> str:
    return mutant.name


@pytest.mark.parametrize("mutant", MUTANTS, ids=by_name)
def test_a_mutant_fits_its_file_and_its_test_exists(mutant: Mutant) -> None:
    source = read(ROOT, mutant)
    changed = mutated(mutant, source)
    assert changed != source
    ast.parse(changed)
    path, _, name = mutant.test.partition("[")[0].partition("::")
    functions = [node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)]
    assert name in functions


def test_every_mutant_has_a_name_of_its_own() -> None:
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("source", ["a = 1\n", "b = 1\nb = 1\n"])
def test_a_text_that_is_gone_or_no_longer_unique_is_noticed(source: str) -> None:
    mutant = Mutant(name="m", file="f.py", old="b = 1", new="b = 2", test="t.py::test_b")
    with pytest.raises(DoesNotFit, match=r"stands [02] times"):
        mutated(mutant, source)
