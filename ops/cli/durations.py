"""Durations as people write them: `90s`, `5m`, `1.5h`, `500ms`."""

import math
import re
from typing import final

import click

_TEXT = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@final
class Duration(click.ParamType[float]):
    """A duration above 0, in seconds."""

    name = "duration"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """From text such as `90s`."""
        if isinstance(value, float):
            return value
        match = _TEXT.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is no duration; write one such as 90s, 5m or 1h", param, ctx)
        seconds = float(match[1]) * _SECONDS[match[2]]
        if not 0 < seconds < math.inf:
            self.fail(f"{value!r}: a duration above 0 is needed", param, ctx)
        return seconds


def in_words(seconds: float) -> str:
    """`12.0 s`, `5 min 3 s`, `2 h 4 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
