"""Options and faults as values of JSON, and back from what somebody may have written by hand.

Reading refuses whatever it does not understand, with the key, what was found and what is allowed: a misspelt key that
was left out in silence would run another case than the one meant.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, fields

from isochrone.drills.sim.options import FAULT_KINDS, Mode, SimOptions
from isochrone.drills.sim.schedule import Fault, FaultKind
from isochrone.errors import InvalidRequest

_FAULT_KEYS = ("at_ms", "duration_ms", "kind", "targets", "amount")
_FOUND_MAX = 60
"""Characters of a wrong value that are repeated."""


def options_to_plain(options: SimOptions) -> dict[str, object]:
    """As values for JSON."""
    plain: dict[str, object] = asdict(options)
    plain["fault_weights"] = dict(options.fault_weights)
    return plain


def options_from_plain(plain: Mapping[str, object]) -> SimOptions:
    """Back from values of JSON.

    Raises:
        InvalidRequest: a key is unknown or missing, or a value cannot be.
    """
    known = {each.name: each for each in fields(SimOptions)}
    _check_keys(plain, known, [name for name, each in known.items() if each.default is MISSING], "options")
    values = {name: _option(name, known[name].type, value) for name, value in plain.items()}
    return SimOptions(**values)  # type: ignore[arg-type]


def _option(name: str, wanted: object, value: object) -> object:
    path = f"options.{name}"
    if name == "mode":
        return Mode(_one_of(value, [mode.value for mode in Mode], path))
    if name == "fault_weights":
        if not isinstance(value, Mapping):
            raise _refusal(path, value, "an object of kinds of fault and their weights")
        return tuple((_one_of(kind, FAULT_KINDS, path), _weight(path, kind, value[kind])) for kind in value)
    if wanted is int:
        return _whole(value, path)
    if wanted is float:
        return _number(value, path)
    if wanted is bool and not isinstance(value, bool):
        raise _refusal(path, value, "true or false")
    if wanted is str and not isinstance(value, str):
        raise _refusal(path, value, "text")
    return value


def _weight(path: str, kind: object, value: object) -> float:
    weight = _number(value, f"{path}.{kind}")
    if weight < 0:
        raise _refusal(f"{path}.{kind}", value, "0 or more")
    return weight


def fault_to_plain(fault: Fault) -> dict[str, object]:
    """As values for JSON."""
    return {
        "at_ms": fault.at_ms,
        "duration_ms": fault.duration_ms,
        "kind": fault.kind.value,
        "targets": list(fault.targets),
        "amount": fault.amount,
    }


def fault_from_plain(plain: object, path: str) -> Fault:
    """Back from values of JSON; `path` is where they stand in their file.

    Raises:
        InvalidRequest: it is no fault. Whether it fits a topology is not looked at.
    """
    if not isinstance(plain, Mapping):
        raise _refusal(path, plain, f"an object with {', '.join(_FAULT_KEYS)}")
    _check_keys(plain, _FAULT_KEYS, ("at_ms", "duration_ms", "kind"), path)
    targets = plain.get("targets", [])
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise _refusal(f"{path}.targets", targets, "a list of names")
    return Fault(
        _whole(plain["at_ms"], f"{path}.at_ms"),
        _whole(plain["duration_ms"], f"{path}.duration_ms"),
        FaultKind(_one_of(plain["kind"], [kind.value for kind in FaultKind], f"{path}.kind")),
        tuple(targets),
        _number(plain.get("amount", 0.0), f"{path}.amount"),
    )


def _check_keys(plain: Mapping[str, object], known: Iterable[str], required: Iterable[str], path: str) -> None:
    allowed = list(known)
    for key in plain:
        if key not in allowed:
            raise InvalidRequest(f"{path}: found the unknown key {key}; allowed: {', '.join(allowed)}")
    for key in required:
        if key not in plain:
            raise InvalidRequest(f"{path}.{key}: found nothing; this key is required")


def _one_of(value: object, allowed: Iterable[str], path: str) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise _refusal(path, value, ", ".join(allowed))
    return value


def _whole(value: object, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _refusal(path, value, "a whole number")
    return value


def _number(value: object, path: str) -> float:
    """A finite number. JSON as Python reads it knows others, too."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _refusal(path, value, "a finite number")
    return value


def _refusal(path: str, found: object, allowed: str) -> InvalidRequest:
    text = repr(found)
    return InvalidRequest(
        f"{path}: found {text if len(text) <= _FOUND_MAX else text[: _FOUND_MAX - 1] + '…'}; allowed: {allowed}"
    )
