"""Transactions as `etcdctl txn` reads them: compares, a blank line, requests if they hold, a blank line, requests else.

::

    version("k/a") = "0"
    value("k/b") != "old"

    put k/a new
    del k/b

    get k/b

This module is pure.
"""

import re
import shlex

from isochrone.errors import InvalidRequest
from isochrone.wire.kv import (
    Compare,
    DeleteRange,
    Increment,
    KvOperation,
    Put,
    Range,
    Relation,
    Target,
    Txn,
    prefix_end,
)

_COMPARE = re.compile(r'\s*(\w+)\((".*"|[^"]*)\)\s*(=|!=|<=|<|>)\s*(".*"|[^"]*?)\s*')
_TARGETS = {
    "ver": Target.VERSION,
    "version": Target.VERSION,
    "c": Target.CREATE,
    "create": Target.CREATE,
    "m": Target.MOD,
    "mod": Target.MOD,
    "val": Target.VALUE,
    "value": Target.VALUE,
    "lease": Target.LEASE,
    "token": Target.TOKEN,
    "lock": Target.LOCK,
}
_RELATIONS = {
    "=": Relation.EQUAL,
    "!=": Relation.NOT_EQUAL,
    "<": Relation.LESS,
    ">": Relation.GREATER,
    "<=": Relation.NOT_GREATER,
}


def parse_txn(text: str) -> Txn:
    """Parse a transaction. Raises `InvalidRequest`, naming the line."""
    parts: list[list[tuple[int, str]]] = [[]]
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            parts[-1].append((number, line))
        else:
            parts.append([])
    while len(parts) > 3 and not parts[-1]:
        parts.pop()
    if len(parts) > 3:
        raise InvalidRequest("a transaction has three parts, each ended by a blank line: compares, then, else")
    compares, then, otherwise = (*parts, [], [])[:3]
    return Txn(
        tuple(_compare(number, line) for number, line in compares),
        tuple(_request(number, line) for number, line in then),
        tuple(_request(number, line) for number, line in otherwise),
    )


def _compare(number: int, line: str) -> Compare:
    match = _COMPARE.fullmatch(line)
    target = _TARGETS.get(match[1]) if match else None
    if match is None or target is None:
        raise InvalidRequest(f'line {number}: {line.strip()!r} is no compare such as version("key") = "0"')
    key, relation, operand = _unquoted(number, match[2]).encode(), _RELATIONS[match[3]], _unquoted(number, match[4])
    if target is Target.VALUE:
        return Compare(key, target, relation, value=operand.encode())
    lock = b""
    if target is Target.TOKEN:  # as a gate holds it: the token, a blank, the name of the lock
        operand, _, name = operand.partition(" ")
        lock = name.encode()
    try:
        return Compare(key, target, relation, int(operand, 0), lock)
    except ValueError:
        raise InvalidRequest(f"line {number}: {operand!r} is no number") from None


def _unquoted(number: int, word: str) -> str:
    return _words(number, word)[0] if word.startswith('"') else word.strip()


def _request(number: int, line: str) -> KvOperation:
    match _words(number, line):
        case ["put", key, value]:
            return Put(key.encode(), value.encode())
        case ["incr", key, delta] if re.fullmatch(r"[+-]?[0-9]+", delta):
            return Increment(key.encode(), int(delta))
        case ["get", key]:
            return Range(key.encode())
        case ["get", "--prefix", key] | ["get", key, "--prefix"]:
            return Range(key.encode(), prefix_end(key.encode()))
        case ["del", key]:
            return DeleteRange(key.encode())
        case ["del", "--prefix", key] | ["del", key, "--prefix"]:
            return DeleteRange(key.encode(), prefix_end(key.encode()))
        case _:
            text = f"line {number}: {line.strip()!r} is none of: put KEY VALUE, get [--prefix] KEY, "
            raise InvalidRequest(text + "del [--prefix] KEY, incr KEY NUMBER")


def _words(number: int, line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise InvalidRequest(f"line {number}: {error}") from None
