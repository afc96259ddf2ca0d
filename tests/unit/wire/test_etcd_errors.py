"""Every error of ours reaches a client of etcd under a code and a text that make it act rightly."""

import inspect

import grpc
import pytest

from isochrone import errors
from isochrone.errors import Indeterminate, InvalidRequest, NotLeader, Rejected
from isochrone.ids import GroupId
from isochrone.wire.entries import CorruptEntry
from isochrone.wire.etcd.errors import ETCD_BY_ERROR, OWN_PREFIX, EtcdError, status_of

OURS = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, Exception)]


def made(cls: type[Exception]) -> Exception:
    return NotLeader(GroupId("g"), None) if cls is NotLeader else cls("told why")


def test_codes_are_those_of_grpc_and_texts_tell_errors_apart() -> None:
    for error in EtcdError:
        assert error.value.code in grpc.StatusCode.__members__
        assert error.value.text.startswith("etcdserver: ")
    assert len({error.value.text for error in EtcdError}) == len(EtcdError)


@pytest.mark.parametrize("cls", OURS)
def test_an_error_without_an_equal_keeps_its_code_and_text(cls: type[Exception]) -> None:
    status = status_of(made(cls))
    if any(base in ETCD_BY_ERROR for base in cls.__mro__):
        assert status in [error.value for error in EtcdError]
    else:
        assert status.code == errors.status_of(made(cls))
        assert status.text == f"{OWN_PREFIX}told why"


@pytest.mark.parametrize("cls", [cls for cls in OURS if issubclass(cls, Indeterminate)])
def test_what_may_have_been_applied_travels_as_a_timeout(cls: type[Exception]) -> None:
    status = status_of(made(cls))
    assert status.code == "UNAVAILABLE"
    assert status.text.startswith(EtcdError.TIMEOUT.value.text)


@pytest.mark.parametrize("cls", [cls for cls in OURS if issubclass(cls, Rejected | InvalidRequest)])
def test_what_was_surely_not_applied_does_not(cls: type[Exception]) -> None:
    assert not status_of(made(cls)).text.startswith(EtcdError.TIMEOUT.value.text)


def test_a_class_below_one_in_the_table_stands_under_the_same() -> None:
    assert status_of(CorruptEntry("damaged")) == EtcdError.STOPPED.value


def test_what_is_no_error_of_ours_is_internal() -> None:
    assert status_of(ZeroDivisionError("no")).code == "INTERNAL"
