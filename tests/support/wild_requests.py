"""Commands, queries and messages as nobody sane would send them: every kind, with any values in any field.

Drawn from a seeded generator, most of them well-formed and about the same few keys, leases and numbers, so that they
meet in the state; the same seed makes the same ones.
"""

import random

import msgpack

from isochrone.wire import commands, kv, leases, session_codec
from isochrone.wire.forms import Form

KEYS = (b"k/a", b"k/a/b", b"k/a/b/c", b"k/b", b"m/a")
ODD_KEYS = (b"k/", b"m/", b"k0", b"outside", b"", b"\0", b"\xff", b"k/" + b"x" * 4094, b"k" * 5_000)
VALUES = (b"", b"7", b"text", b"-9223372036854775807", b"9223372036854775807", b"0")
EXTREMES = (1 << 31, 1 << 32, 1 << 53, 1 << 62, (1 << 63) - 1, -(1 << 31), -(1 << 63) + 1)
BEYOND = (1 << 63, (1 << 64) - 1, -(1 << 63))
TEXTS = ("g", "k/", "m/", "", "other", "x" * 300, "\ud7ff\0")
FORMS = (*commands._FORMS, *leases._HOUSEKEEPING_FORMS)
"""Of everything that a group can be told; the last ones are no business of clients."""


def anything(rng: random.Random, depth: int = 3) -> object:
    """Any value that msgpack can carry."""
    match rng.randrange(11 if depth else 8):
        case 0:
            return None
        case 1:
            return rng.random() < 0.5
        case 2:
            return rng.choice((*EXTREMES, *BEYOND))
        case 3:
            return rng.choice((0.0, 1.0, -1.5, float("nan"), float("inf"), 1e300))
        case 4:
            return rng.randbytes(rng.randrange(12))
        case 5:
            return rng.choice(TEXTS)
        case 6:
            return msgpack.ExtType(rng.randrange(128), rng.randbytes(3))
        case 7:
            return rng.randrange(-3, 40)
        case 8:
            return {rng.choice(TEXTS): anything(rng, depth - 1) for _ in range(rng.randrange(3))}
        case _:
            return [anything(rng, depth - 1) for _ in range(rng.randrange(5))]


def number(rng: random.Random) -> int:
    """A number, small more often than not."""
    drawn = rng.random()
    return rng.choice(EXTREMES) if drawn < 0.12 else rng.randrange(-2, 9) if drawn < 0.25 else rng.randrange(4)


def value(rng: random.Random, kind: type) -> object:
    """A value of a type, ordinary or extreme."""
    if kind is bool:
        return rng.random() < 0.3
    if kind is int:
        return number(rng)
    if kind is bytes:
        drawn = rng.random()
        return rng.choice(KEYS if drawn < 0.7 else VALUES if drawn < 0.85 else ODD_KEYS)
    if kind is str:
        return rng.choice(TEXTS)
    return tuple([anything(rng, 1) for _ in range(rng.randrange(3))])


def fields(rng: random.Random, types: tuple[type, ...]) -> tuple[object, ...]:
    """Fields of these types; now and then one is of another type, missing or one too many."""
    values = [value(rng, kind) for kind in types]
    match rng.randrange(24):
        case 0:
            values = values[:-1]
        case 1:
            values.append(anything(rng))
        case 2 if values:
            values[rng.randrange(len(values))] = anything(rng)
    return tuple(values)


def of_form(rng: random.Random, form: Form) -> tuple[object, ...]:
    """An operation of a form, as a tuple."""
    return (form.tag, *fields(rng, form.types))


def transaction(rng: random.Random, depth: int = 3) -> tuple[object, ...]:
    """A transaction as a tuple, with others inside."""

    def branch() -> list[object]:
        nests = [depth > 0 and rng.random() < 0.3 for _ in range(rng.randrange(4))]
        return [transaction(rng, depth - 1) if nest else of_form(rng, rng.choice(kv.KV_FORMS)) for nest in nests]

    compares = [fields(rng, kv._COMPARE.types) for _ in range(rng.choice((0, 0, 1, 2)))]
    return (kv.TXN, compares, branch(), branch())


def operation(rng: random.Random) -> tuple[object, ...]:
    """Any operation or query as a tuple."""
    return transaction(rng) if rng.random() < 0.2 else of_form(rng, rng.choice(FORMS))


def command(rng: random.Random, session_id: int = 0) -> bytes:
    """An encoded command, most likely a well-formed one, perhaps of this session."""
    version = commands.COMMAND_VERSION if rng.random() < 0.97 else rng.choice((1, -1, "2", None))
    drawn = rng.random()
    place = (0, 0, 0) if drawn < 0.5 else (session_id if drawn < 0.9 else number(rng), number(rng), number(rng))
    return bytes(msgpack.packb((version, *place, *operation(rng))))


def query(rng: random.Random) -> bytes:
    """An encoded query, most likely a well-formed one."""
    version = commands.COMMAND_VERSION if rng.random() < 0.97 else 3
    return bytes(msgpack.packb((version, *operation(rng))))


def message(rng: random.Random) -> tuple[object, ...]:
    """A message of a session as a tuple."""
    tag = rng.choice((*session_codec._FORMS, 99))
    types = session_codec._FORMS[tag][1] if tag in session_codec._FORMS else (int,)
    return (tag, *fields(rng, tuple(kind if isinstance(kind, type) else str for kind in types)))


def damaged(rng: random.Random, whole: bytes) -> bytes:
    """Bytes of which some were lost, changed or added."""
    data = bytearray(whole)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                del data[at:]
            case 1 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 6))
            case _:
                del data[at : at + 3]
    return bytes(data)
