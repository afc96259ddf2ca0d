"""Frozen dataclasses that cost little to make.

A frozen dataclass sets each of its fields through `object.__setattr__`, which makes one of four fields about five times
as expensive as one that is not frozen. A node makes a dozen small objects for every message, and this was a tenth of
all that a simulated cluster computes.

`quickly_made` gives a frozen dataclass the constructor of one that is not. The type checker still refuses every
assignment to a field, and code that is not checked has no business with these classes.
"""

import dataclasses
from typing import TypeVar

T = TypeVar("T")


def quickly_made(frozen: type[T]) -> type[T]:
    """Make instances of a frozen, slotted dataclass as fast as those of any other; stands above `@dataclass`.

    HAZARD: at run time nothing refuses an assignment to a field any more, and hashes are still those of the fields.
    """
    fields = [(each.name, each.type, _copy(each)) for each in dataclasses.fields(frozen)]  # type: ignore[arg-type]
    checks = {name: value for name, value in vars(frozen).items() if name == "__post_init__"}
    thawed = dataclasses.make_dataclass(frozen.__name__, fields, namespace=checks)
    frozen.__init__ = thawed.__init__  # type: ignore[method-assign,misc]
    del frozen.__setattr__, frozen.__delattr__
    return frozen


def _copy(field: "dataclasses.Field[object]") -> object:
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory, kw_only=field.kw_only)
    return dataclasses.field(default=field.default, kw_only=field.kw_only)
