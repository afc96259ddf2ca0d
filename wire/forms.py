"""Operations and queries as flat tuples `(tag, field, …)`, so that one table serves both directions."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from enum import IntEnum
from operator import attrgetter
from typing import cast

from isochrone.errors import InvalidRequest

_NUMBER_MAX = (1 << 63) - 1

FieldType = type[int] | type[bytes] | type[bool] | type[str] | type[IntEnum]


class Form:
    """How one dataclass travels: its tag, and the exact types of its fields in order."""

    __slots__ = ("_defaults", "_enums", "_make", "_numbers", "_required", "_values", "cls", "tag", "types")

    def __init__(self, tag: int, cls: type[object], *types: FieldType, required: int | None = None) -> None:
        """`required`: so many fields, all of them bytes, always travel; the others only if one has not its default."""
        self.tag = tag
        self.cls = cls
        self.types = tuple(int if issubclass(kind, IntEnum) else kind for kind in types)
        self._enums = [(place, kind) for place, kind in enumerate(types) if issubclass(kind, IntEnum)]
        self._numbers = [place for place, kind in enumerate(self.types) if kind is int]
        self._make = cast("Callable[..., object]", cls)
        names = [item.name for item in fields(cls)]  # type: ignore[arg-type]
        assert len(names) == len(types), cls
        self._values = attrgetter(*names) if len(names) > 1 else None
        assert required is None or set(types[:required]) == {bytes}, cls
        self._required = len(names) if required is None else required
        self._defaults = tuple([item.default for item in fields(cls)[self._required :]])  # type: ignore[arg-type]

    def pack(self, value: object) -> tuple[object, ...]:
        """The tuple of a value."""
        if self._values is not None:
            values: tuple[object, ...] = self._values(value)
            if self._defaults and values[self._required :] == self._defaults:
                return (self.tag, *values[: self._required])
            return (self.tag, *values)
        return (self.tag, *[getattr(value, item.name) for item in fields(self.cls)])  # type: ignore[arg-type]

    def unpack(self, values: tuple[object, ...]) -> object:
        """Back from the tuple's fields. Raises `InvalidRequest`, or `ValueError` for a number that an enum lacks."""
        found = tuple(map(type, values))
        if found != self.types:
            if found != self.types[: self._required]:
                raise InvalidRequest(f"malformed fields of {self.cls.__name__}")
            return self._make(*values)
        for place in self._numbers:
            if not -_NUMBER_MAX - 1 <= cast("int", values[place]) <= _NUMBER_MAX:
                raise InvalidRequest(f"a number in {self.cls.__name__} is out of the range of 64 bits")
        if self._enums:
            changed = list(values)
            for place, kind in self._enums:
                changed[place] = kind(cast("int", values[place]))
            return self._make(*changed)
        return self._make(*values)


def by_tag(forms: Iterable[Form]) -> dict[int, Form]:
    """Index forms for decoding. Two forms of one tag are a fault of the table."""
    table: dict[int, Form] = {}
    for form in forms:
        assert form.tag not in table, form.tag
        table[form.tag] = form
    return table


def by_class(forms: Iterable[Form]) -> dict[type[object], Form]:
    """Index forms for encoding."""
    return {form.cls: form for form in forms}
