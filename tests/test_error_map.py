"""Every error of the tree has its own gRPC status, and it is one that gRPC knows."""

import inspect

import grpc
import pytest

from isochrone import errors
from isochrone.errors import STATUS_BY_ERROR, InvariantViolation, IsochroneError, status_of
from isochrone.wire.entries import CorruptEntry

DEFINED = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]


def test_the_classes_are_found() -> None:
    assert {IsochroneError, InvariantViolation, errors.NotLeader, errors.SessionExpired} <= set(DEFINED)


@pytest.mark.parametrize("cls", DEFINED)
def test_every_class_is_mapped_to_a_status_of_grpc(cls: type[Exception]) -> None:
    assert cls in STATUS_BY_ERROR
    assert STATUS_BY_ERROR[cls] in grpc.StatusCode.__members__


def test_nothing_else_is_mapped() -> None:
    assert set(STATUS_BY_ERROR) == set(DEFINED)


def test_the_drawing_of_the_tree_names_every_class() -> None:
    assert errors.__doc__ is not None
    assert [cls.__name__ for cls in DEFINED if cls.__name__ not in errors.__doc__] == []


def test_no_error_travels_as_success() -> None:
    assert "OK" not in STATUS_BY_ERROR.values()


@pytest.mark.parametrize("cls", [cls for cls in DEFINED if cls is not errors.NotLeader])
def test_an_error_travels_under_the_status_of_its_class(cls: type[Exception]) -> None:
    assert status_of(cls("told")) == STATUS_BY_ERROR[cls]


def test_a_class_without_an_own_status_takes_that_of_its_base() -> None:
    assert status_of(CorruptEntry("told")) == STATUS_BY_ERROR[errors.StorageError]
    assert status_of(ZeroDivisionError()) == "INTERNAL"
