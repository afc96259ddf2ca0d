"""Fence gates: keys that let no write pass that comes under an older token than another one before.

A gate holds the highest token that it let pass, and the lock of the first one: a token in decimal, a blank, and the
name of the lock. It is looked at and moved in the transaction that makes the guarded write.
"""

from isochrone.errors import InvalidRequest
from isochrone.wire.kv import NUMBER_MAX, Compare, KvOperation, Put, Range, Relation, Target, Txn, decimal

NO_TOKEN = NUMBER_MAX + 1
"""Above every fencing token."""


def fenced(gate: bytes, lock: bytes, token: int, *operations: KvOperation) -> Txn:
    """A transaction that a fence gate lets pass, unless the gate has seen a higher token or belongs to another lock.

    The gate is a key of its own; it remembers the lock of the first token that it let pass, and the highest token. What
    it holds is read if it refuses. Raises `InvalidRequest` for a token that no grant has.
    """
    if token <= 0:
        raise InvalidRequest(f"{token} is not a fencing token: those are above 0")
    passes = Compare(gate, Target.TOKEN, Relation.NOT_GREATER, token, lock)
    return Txn((passes,), (Put(gate, b"%d %s" % (token, lock)), *operations), (Range(gate),))


def gate_token(value: bytes | None, lock: bytes) -> int:
    """The token in the value of a fence gate, as `Target.TOKEN` says."""
    if value is None:
        return 0
    text, _, name = value.partition(b" ")
    token = decimal(text)
    return token if token is not None and name == lock else NO_TOKEN
