"""Transactions as text: what `etcdctl txn` takes, and what is refused with the line that is wrong."""

import pytest

from isochrone.errors import InvalidRequest
from isochrone.ops.cli.txn_text import parse_txn
from isochrone.wire.kv import Compare, DeleteRange, Increment, Put, Range, Relation, Target, Txn


def test_three_parts_are_read() -> None:
    text = """version("k/a") = "0"
val("k/b")!="old (1)"
mod(k/c) > 0x10
token("k/gate") <= "7 k/my lock"

put k/a "new value"
incr k/n -2

get --prefix k/
del k/b
"""
    assert parse_txn(text) == Txn(
        (
            Compare(b"k/a", Target.VERSION, Relation.EQUAL, 0),
            Compare(b"k/b", Target.VALUE, Relation.NOT_EQUAL, value=b"old (1)"),
            Compare(b"k/c", Target.MOD, Relation.GREATER, 16),
            Compare(b"k/gate", Target.TOKEN, Relation.NOT_GREATER, 7, b"k/my lock"),
        ),
        (Put(b"k/a", b"new value"), Increment(b"k/n", -2)),
        (Range(b"k/", b"k0"), DeleteRange(b"k/b")),
    )


def test_parts_may_be_left_out() -> None:
    assert parse_txn("\nput k/a 1\n") == Txn((), (Put(b"k/a", b"1"),), ())
    assert parse_txn("\n\nget k/a\n\n\n") == Txn((), (), (Range(b"k/a"),))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('size("k/a") = "0"', "line 1"),
        ('version("k/a") == "0"', "line 1"),
        ('version("k/a") = "many"', "'many' is no number"),
        ("\nput k/a", "line 2"),
        ("\nput k/a 'open", "line 2"),
        ("\nincr k/a much", "line 2"),
        ("\n\n\nput k/a 1", "three parts"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        parse_txn(text)
