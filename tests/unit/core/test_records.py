"""A quickly made dataclass behaves as a frozen one does, but for what is done to it at run time."""

import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace

import pytest

from isochrone.records import quickly_made


@dataclass(frozen=True, slots=True)
class Frozen:
    first: int
    second: str = "b"
    third: list[int] = field(default_factory=list)
    fourth: int = field(default=4, kw_only=True)

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError("negative")


@quickly_made
@dataclass(frozen=True, slots=True)
class Quick:
    first: int
    second: str = "b"
    third: list[int] = field(default_factory=list)
    fourth: int = field(default=4, kw_only=True)

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError("negative")


@quickly_made
@dataclass(frozen=True, slots=True)
class Key:
    group: str
    index: int


@pytest.mark.parametrize(
    ("positional", "named"),
    [((1,), {}), ((1, "x", [2]), {"fourth": 5}), ((), {"first": 3, "third": [1], "second": ""})],
)
def test_it_takes_the_arguments_and_defaults_of_the_frozen_one(
    positional: tuple[object, ...], named: dict[str, object]
) -> None:
    quick, frozen = Quick(*positional, **named), Frozen(*positional, **named)
    assert [getattr(quick, each.name) for each in fields(Quick)] == [
        getattr(frozen, each.name) for each in fields(Frozen)
    ]


def test_a_default_that_is_made_is_made_for_each() -> None:
    assert Quick(1).third is not Quick(1).third


def test_its_checks_run() -> None:
    with pytest.raises(ValueError, match="negative"):
        Quick(-1)


def test_arguments_that_the_frozen_one_refuses_are_refused() -> None:
    for wrong in ({}, {"first": 1, "fifth": 2}):
        with pytest.raises(TypeError):
            Quick(**wrong)
    with pytest.raises(TypeError):
        Quick(1, "x", [], 5)


def test_it_is_equal_by_its_fields_and_a_key_of_dictionaries() -> None:
    assert Key("g", 1) == Key("g", 1) != Key("g", 2)
    assert {Key("g", 1): "a"}[Key("g", 1)] == "a"
    assert repr(Key("g", 1)) == "Key(group='g', index=1)"


def test_it_is_replaced_matched_and_pickled() -> None:
    assert replace(Key("g", 1), index=2) == Key("g", 2)
    assert pickle.loads(pickle.dumps(Key("g", 1))) == Key("g", 1)
    match Key("g", 1):
        case Key(group, index):
            assert (group, index) == ("g", 1)


def test_it_has_slots_and_only_the_one_that_is_not_quick_refuses_assignments() -> None:
    with pytest.raises(AttributeError):
        Key("g", 1).other = 2
    Key("g", 1).index = 2
    with pytest.raises(FrozenInstanceError):
        Frozen(1).first = 2
